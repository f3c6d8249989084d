"""What `chat_format` is made of: forms of dialogue, and what a person can see of a rendered prompt."""
