"""One module for each stage; its name is the verb on the command line."""
