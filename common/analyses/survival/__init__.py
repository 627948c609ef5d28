"""Follow-up: Cox models, Kaplan-Meier curves, and questions to a Cox model."""
