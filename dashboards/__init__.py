"""Where people look: figures and the report of a sweep. Reads tables and verdicts; never torch, Ray or MLflow."""
