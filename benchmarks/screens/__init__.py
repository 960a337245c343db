"""What a whole screen finds: hits, and phenotypes that its model does not know; and what damage costs."""
