"""How do messages and labels get out, into files that others read, or that are sent again?"""
