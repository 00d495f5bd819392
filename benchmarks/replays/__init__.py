"""What the replays of the streaming loop share: streams, models, what is told of a stream, figures."""
