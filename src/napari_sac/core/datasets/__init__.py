"""Where labelled images come from: folders of pairs, and the public collections.

Every reader ends in the same value, a ``LabelledImage`` of ``pairs``.
"""
