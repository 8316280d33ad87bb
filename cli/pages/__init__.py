"""The catalogue as a static site: what is read and shown, and the folder that it is written to.

Imports the rooms below ``cli``, and none of the commands.
"""
