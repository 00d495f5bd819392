"""One ranker for many domains: AdaptDHM, and the models that it is judged against."""
