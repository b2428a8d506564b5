"""Where replicas meet Trio: node tasks, their supervisor, the registry and the faults API."""
