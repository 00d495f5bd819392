"""Conformance suites: what every implementation of a protocol promises, to be run by its author.

A suite yields plain functions that take a factory and raise AssertionError. They need pytest and hypothesis.
"""
