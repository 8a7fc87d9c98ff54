"""What chats have in common whatever the model or protocol: thoughts, tool calls and how models write them. Pure."""
