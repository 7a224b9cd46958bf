"""Click models: how people go through a list, learnt from the log itself.

`position` has people look at places one by one (and holds plain click-through rates), `browsing` lets it depend on
the last click, `top_down` has them go down and stop; `measures` says how well a model predicts clicks it has not seen.

Letters in shapes: n lists or sessions, L places, N (query, document) pairs, K slots, P click patterns.
"""
