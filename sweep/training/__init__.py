"""From an architecture and images to epoch results. Knows neither Ray nor MLflow."""
