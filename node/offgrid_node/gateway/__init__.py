"""HTTP beside gRPC: what browsers and monitoring can reach. So far the metrics alone."""
