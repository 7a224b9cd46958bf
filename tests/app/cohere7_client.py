"""Run in a process of its own, where `cohere` is version 7: reranks with both clients and prints what came back."""

import json
import sys

import cohere


def main() -> None:
    assert cohere.__version__.startswith("7."), cohere.__version__
    query, model, *documents = sys.argv[1:]  # the address is in CO_API_URL
    v1 = cohere.Client("key").rerank(query=query, model=model, documents=documents, top_n=2, return_documents=True)
    v2 = cohere.ClientV2("key").rerank(query=query, model=model, documents=documents)
    replies = {
        "v1": [
            (result.index, result.relevance_score, result.document.text) for result in v1.results if result.document
        ],
        "v2": [(result.index, result.relevance_score) for result in v2.results],
    }
    print(json.dumps(replies))


if __name__ == "__main__":
    main()
