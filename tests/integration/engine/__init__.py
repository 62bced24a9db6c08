"""The engine on a real API server, with a toy kind whose objects ask for all that a Plan can hold."""
