"""Which model is served: the gate, the registry, and the snapshots that registered versions name."""

import os

# MLflow reads this while it is imported; without it, each use is reported to its makers' servers.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
