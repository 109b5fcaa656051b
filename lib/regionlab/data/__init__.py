"""Images, masks, prompts, collections and the data-set loaders."""
