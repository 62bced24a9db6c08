"""What "true" means for a PromptProgram: its rows and metric were checked, and a revision of it is served."""
