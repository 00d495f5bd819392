"""Rankers: the probability of an action, from pooled embedding rows. A learner trains, a scorer serves.

Nothing is imported here, so that a server that only scores never loads what training needs.
"""
