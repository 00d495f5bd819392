"""Names of the topics that make the loop."""

IMPRESSIONS = "headrace.impressions.v1"
FEEDBACK = "headrace.feedback.v1"
EXAMPLES = "headrace.examples.v1"
DELTAS = "headrace.deltas.v1"
DEAD_LETTER = "headrace.dead-letter.v1"

ALL_TOPICS = (IMPRESSIONS, FEEDBACK, EXAMPLES, DELTAS, DEAD_LETTER)
