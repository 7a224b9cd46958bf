// The page: one query, the list before and after reranking, and clicks that go back to the log.

const TOP_K = 20;
const byId = (id) => document.getElementById(id);
const view = {
  form: byId("search"), query: byId("query"), pipeline: byId("pipeline"), status: byId("status"),
  timing: byId("timing"), board: byId("board"), before: byId("before"), after: byId("after"), moves: byId("moves"),
};
let latestSearch = 0;

async function request(path, body) {
  const options = body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, options || undefined);
  const reply = await response.json();
  if (!response.ok) throw new Error(reply.message || `${response.status} ${response.statusText}`);
  return reply;
}

function say(text, isError = false) {
  view.status.textContent = text;
  view.status.classList.toggle("error", isError);
}

async function loadPipelines() {
  const { pipelines, default: chosen } = await request("/v1/pipelines");
  for (const { name, retriever } of pipelines) {
    if (retriever) view.pipeline.add(new Option(name, name, name === chosen, name === chosen));
  }
}

async function search(query) {
  const turn = ++latestSearch;
  const button = view.form.querySelector("button");
  button.disabled = true;
  say("Searching…");
  try {
    const reply = await request("/v1/search", { query, pipeline: view.pipeline.value || undefined, top_k: TOP_K });
    if (turn !== latestSearch) return; // a newer search is under way
    draw(reply);
  } catch (error) {
    if (turn !== latestSearch) return;
    view.board.hidden = true;
    view.timing.replaceChildren();
    say(error.message, true);
  } finally {
    if (turn === latestSearch) button.disabled = false;
  }
}

function draw(reply) {
  const first = reply.stages[0].name;
  const reranked = reply.stages.length > 1;
  const before = [...reply.results].sort((a, b) => a.stages[first].rank - b.stages[first].rank);
  const total = reply.stages.reduce((sum, stage) => sum + stage.ms, 0);
  const degraded = reply.meta.degraded_reason ? ` — ${reply.meta.degraded_reason}` : "";
  say(reply.results.length ? `${reply.results.length} results, pipeline ${reply.pipeline}, ${ms(total)}${degraded}` : "Nothing found.");
  view.timing.replaceChildren(...reply.stages.map((stage) => {
    const bar = element("span", "", `${stage.name} ${ms(stage.ms)}`);
    bar.style.flexGrow = Math.max(stage.ms / total, 0.02);
    return bar;
  }));
  view.before.replaceChildren(...before.map((result) => hit(reply, result, result.stages[first], false)));
  view.after.replaceChildren(...reply.results.map((result) => hit(reply, result, result, true)));
  byId("after-title").textContent = reranked ? `After ${reply.stages.at(-1).name}` : "Results";
  byId("before-title").textContent = `Before: ${first}`;
  view.board.classList.toggle("single", !reranked);
  view.board.hidden = reply.results.length === 0;
  drawMoves();
}

function hit(reply, result, place, isFinal) {
  const first = reply.stages[0].name;
  const item = document.createElement("li");
  const card = element("button", "hit");
  card.type = "button";
  card.dataset.id = result.document.id;
  const was = result.stages[first].rank;
  const rank = element("span", "rank", String(place.rank));
  const title = element("span", "title", result.document.title || result.document.id);
  if (isFinal && was !== result.rank) {
    const rose = was > result.rank;
    title.append(element("span", `move ${rose ? "up" : "down"}`, `${rose ? "↑" : "↓"}${Math.abs(was - result.rank)}`));
  }
  const score = element("span", "score", place.score.toPrecision(3));
  score.title = place.score_kind || reply.meta.score_kind;
  card.append(rank, title, score, element("span", "text", result.document.text));
  card.addEventListener("mouseenter", () => light(result.document.id, true));
  card.addEventListener("mouseleave", () => light(result.document.id, false));
  card.addEventListener("click", () => open(card, reply, result));
  item.append(card);
  return item;
}

async function open(card, reply, result) {
  card.classList.toggle("open");
  drawMoves();
  if (!card.classList.contains("open")) return;
  try {
    const click = { impression_id: reply.impression_id, document_id: result.document.id, position: result.rank };
    await request("/v1/events", { events: [click] });
    for (const same of cards(result.document.id)) same.classList.add("clicked");
    say(`Click on “${result.document.title || result.document.id}” at position ${result.rank} logged.`);
  } catch (error) {
    say(`The click could not be logged: ${error.message}`, true);
  }
}

function cards(id) {
  return [...document.querySelectorAll(".hit")].filter((card) => card.dataset.id === id);
}

function light(id, on) {
  for (const same of cards(id)) same.classList.toggle("lit", on);
  for (const path of view.moves.children) if (path.dataset.id === id) path.classList.toggle("lit", on);
}

function drawMoves() {
  const top = view.moves.getBoundingClientRect().top;
  const middle = (card) => { const box = card.getBoundingClientRect(); return box.top - top + 31; };
  const after = new Map([...view.after.querySelectorAll(".hit")].map((card) => [card.dataset.id, card]));
  view.moves.replaceChildren(...[...view.before.querySelectorAll(".hit")].map((card) => {
    const from = middle(card), to = middle(after.get(card.dataset.id));
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", `M4 ${from} C45 ${from} 45 ${to} 86 ${to}`);
    path.dataset.id = card.dataset.id;
    path.setAttribute("class", to < from ? "up" : to > from ? "down" : "");
    return path;
  }));
}

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

const ms = (value) => (value < 10 ? `${value.toFixed(1)} ms` : `${Math.round(value).toLocaleString()} ms`);

view.form.addEventListener("submit", (event) => {
  event.preventDefault();
  const query = view.query.value.trim();
  if (query) search(query);
});
view.pipeline.addEventListener("change", () => view.query.value.trim() && view.form.requestSubmit());
window.addEventListener("resize", drawMoves);
loadPipelines().catch((error) => say(error.message, true));
