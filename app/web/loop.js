// The page of `shortlist demo-loop`: what its process measures, drawn anew whenever it changes.

const EVERY_MS = 700;
const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);
const PIPELINES = ["production", "naive", "debiased"];
const BOX = { left: 26, right: 264, top: 12, bottom: 212 };
let drawn = "";

async function follow() {
  let state = "";
  try {
    const response = await fetch("/demo/progress");
    if (!response.ok) throw new Error("There is no demonstration here: start one with `shortlist demo-loop`.");
    const text = await response.text();
    if (text !== drawn) draw(JSON.parse(text));
    drawn = text;
    state = JSON.parse(text).state;
  } catch (error) {
    say(error instanceof TypeError ? "The demonstration has ended; what it measured last is below." : error.message, true);
    if (!drawn) return;
  }
  if (state !== "finished") setTimeout(follow, EVERY_MS);
}

function say(text, isError = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("error", isError);
}

function draw(shown) {
  const { measures, curves, decisions, example, rounds } = shown;
  const last = measures.at(-1);
  say(headline(shown, last), shown.state === "failed");
  document.body.dataset.state = shown.state;
  byId("rounds").max = rounds;
  byId("rounds").value = last ? last.round : 0;
  byId("noise").textContent = `A document that is looked at is clicked by those who like it, and by ${percent(shown.noise)} of the others. BM25 knows the words of the query and nothing else of this.`;
  byId("likes").tBodies[0].replaceChildren(...shown.preferences.map(({ says, weight }) =>
    row(says, [`${weight > 0 ? "+" : "−"}${Math.abs(weight).toFixed(1)}`, "number"])));
  drawRounds(byId("clicked"), measures.map((each) => [each.round, each.clicked]), rounds);
  drawRounds(byId("held-out"), measures.map((each) => [each.round, each.held_out]), rounds);
  drawCurves(byId("curves"), curves);
  drawDecisions(decisions);
  if (example) drawExample(example);
  drawNumbers(measures);
}

function headline({ state, doing, rounds }, last) {
  if (state === "failed") return `Failed: ${doing}.`;
  if (state !== "finished") return `${doing[0].toUpperCase()}${doing.slice(1)}…`;
  const { production, naive, debiased } = last.held_out;
  return `After ${rounds} ${rounds === 1 ? "round" : "rounds"} and ${last.clicks.toLocaleString()} clicks: nDCG@10 ${fixed(debiased)} debiased, ${fixed(naive)} naive, ${fixed(production)} before, on queries nobody clicked on.`;
}

function drawDecisions(decisions) {
  const rounds = [...new Set(decisions.map(({ round }) => round))];
  byId("gates").tBodies[0].replaceChildren(...rounds.map((round) => {
    const both = decisions.filter((each) => each.round === round);
    const { clicks } = both[0];
    const made = row(String(round), clicks.toLocaleString());
    made.append(...["debiased", "naive"].map((arm) => verdict(both.find((each) => each.arm === arm))));
    return made;
  }));
}

function verdict(decision) {
  const cell = element("td", "");
  if (!decision) return cell;
  const { arm, promoted, reasons, checks } = decision;
  cell.dataset.arm = arm;
  const better = checks.filter(({ name }) => name.startsWith("better")).map(({ found }) => `held-out clicks ${found}`);
  cell.append(element("span", promoted ? "promoted" : "refused", promoted ? "promoted" : "refused"));
  cell.append(element("div", "why", (promoted ? better : reasons).join("; ")));
  return cell;
}

function drawRounds(svg, points, rounds) {
  const values = points.flatMap(([, values]) => PIPELINES.map((name) => values[name]));
  const low = Math.max(Math.floor(Math.min(0.8, ...values) * 10) / 10, 0);
  const x = scale(0, rounds, BOX.left, BOX.right), y = scale(low, 1, BOX.bottom, BOX.top);
  const steps = Math.round((1 - low) * 10);
  frame(svg, { x, y, xs: range(rounds + 1), ys: range(steps + 1).map((step) => low + step / 10), under: "round" });
  const last = points.at(-1)?.[1];
  for (const name of PIPELINES) line(svg, name, points.map(([round, values]) => [x(round), y(values[name])]));
  if (last) labels(svg, PIPELINES.map((name) => ({ name, text: `${name} ${fixed(last[name])}`, at: y(last[name]) })));
  svg.setAttribute("aria-label", last
    ? `nDCG@10 after round ${points.at(-1)[0]}: ${PIPELINES.map((name) => `${name} ${fixed(last[name])}`).join(", ")}`
    : "no measurement yet");
}

function drawCurves(svg, curves) {
  const x = scale(1, 10, BOX.left + 6, BOX.right), y = scale(0, 1.05, BOX.bottom, BOX.top);
  const kinds = [["true", "true", "as it is"], ["clicks", "naive", "clicks alone"], ["learned", "debiased", "learned"]];
  frame(svg, { x, y, xs: range(10).map((place) => place + 1), ys: [0, 0.2, 0.4, 0.6, 0.8, 1], under: "place" });
  const ends = [];
  for (const [key, name, text] of kinds) {
    const known = (curves[key] || []).map((value, at) => [at + 1, value]).filter(([, value]) => value !== null);
    line(svg, name, known.map(([place, value]) => [x(place), y(Math.min(value, 1.05))]), key !== "true");
    if (known.length) ends.push({ name, text, at: y(known.at(-1)[1]) });
  }
  labels(svg, ends);
  const off = (key) => curves[key].reduce((sum, value, at) => sum + Math.abs((value ?? 0) - curves.true[at]), 0) / curves.true.length;
  byId("errors").textContent = curves.learned
    ? `Where people look, relative to the first place, is learned with a mean error of ${off("learned").toFixed(2)}; clicks by place, which good rankings raise at the top, are off by ${off("clicks").toFixed(2)}.`
    : "";
  const said = kinds.filter(([key]) => curves[key]).map(([key, , text]) => `${text}: ${curves[key].map((value) => value === null ? "unknown" : fixed(value)).join(", ")}`);
  svg.setAttribute("aria-label", `How likely places 1 to 10 are looked at. ${said.join(". ")}`);
}

function drawExample({ query, lists }) {
  byId("example-query").textContent = query;
  byId("example").replaceChildren(...PIPELINES.map((name) => {
    const part = document.createElement("section");
    part.append(element("h3", name, name), document.createElement("ol"));
    part.lastChild.append(...lists[name].map(({ id, text, liked }, at) => {
      const place = element("li", "place");
      place.dataset.id = id;
      place.title = text;
      const bar = element("span", "bar");
      bar.style.width = percent(liked);
      place.append(bar, element("span", "words", `${at + 1}. ${text.trim()}`), element("span", "share", percent(liked)));
      place.lastChild.title = "of the users like it";
      return place;
    }));
    return part;
  }));
}

function drawNumbers(measures) {
  const groups = [["clicked", "with clicks"], ["held_out", "without"]];
  const heads = ["round", "searches", "clicks", ...groups.flatMap(([, text]) => PIPELINES.map((name) => `${name}, ${text}`))];
  const head = document.createElement("tr");
  head.append(...heads.map((text) => Object.assign(element("th", "number", text), { scope: "col" })));
  byId("numbers").tHead.replaceChildren(head);
  byId("numbers").tBodies[0].replaceChildren(...measures.map((each) => row(...[
    each.round, each.searches.toLocaleString(), each.clicks.toLocaleString(),
    ...groups.flatMap(([key]) => PIPELINES.map((name) => fixed(each[key][name]))),
  ].map((value) => [String(value), "number"]))));
}

function frame(svg, { x, y, xs, ys, under }) {
  svg.replaceChildren(
    ...ys.map((value) => shape("line", { class: "grid", x1: BOX.left, x2: BOX.right, y1: y(value), y2: y(value) })),
    ...ys.map((value) => shape("text", { x: BOX.left - 6, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(1))),
    ...xs.map((value) => shape("text", { x: x(value), y: BOX.bottom + 15, "text-anchor": "middle" }, value)),
    shape("text", { x: BOX.right + 10, y: BOX.bottom + 15 }, under),
  );
}

function line(svg, name, points, dots = true) {
  svg.append(shape("path", { class: `curve ${name}`, d: points.map((point, at) => `${at ? "L" : "M"}${point.join(" ")}`).join("") }));
  if (dots) svg.append(...points.map(([cx, cy]) => shape("circle", { class: name, cx, cy, r: 3 })));
}

function labels(svg, ends) {
  ends.sort((a, b) => a.at - b.at);
  ends.forEach((end, number) => { end.at = Math.max(end.at, number ? ends[number - 1].at + 13 : BOX.top); });
  const over = ends.length ? Math.max(ends.at(-1).at - BOX.bottom, 0) : 0;
  svg.append(...ends.map(({ name, text, at }) => shape("text", { class: `label ${name}`, x: BOX.right + 10, y: at - over + 4 }, text)));
}

function shape(tag, attributes, text = "") {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function row(...cells) {
  const made = document.createElement("tr");
  made.append(...cells.map((cell) => Array.isArray(cell) ? element("td", cell[1], cell[0]) : element("td", "", cell)));
  return made;
}

const scale = (from, to, start, end) => (value) => start + ((value - from) / (to - from)) * (end - start);
const range = (count) => [...Array(count).keys()];
const fixed = (value) => value.toFixed(3);
const percent = (share) => `${Math.round(share * 100)}%`;

follow();
