"""HTTP beside gRPC, for browsers, scripts and monitoring, over the same handlers. `app.py` names all that is served."""
