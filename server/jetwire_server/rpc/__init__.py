"""The wire's server side: listeners, one peer per connection, dispatch by the method table, handlers."""
