"""Propensities: how much more likely a place is looked at than the first, estimated in several ways from click lists.

An estimator is a function from `ClickLists` to float64 [K], by slot, 1 at slot 0 and NaN where the log cannot tell:
`randomisation`, `harvesting`, `training.clicks.models.position`, or whatever a learner finds on the way. `resampling`
draws the log again so that every one of them gets a confidence band, `curves` draws them into one plot.
"""
