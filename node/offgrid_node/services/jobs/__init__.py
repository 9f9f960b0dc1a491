"""The jobs' side of the services: the owner's handlers, the market between nodes, and a job's bulk on its way."""
