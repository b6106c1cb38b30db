"""Honest comparison: the same work on the best dense engines, in the same run, on the same threads, checked.

    from zellige.bench.compare import compare
    from zellige.bench.subject import pruned_subject
    from zellige.models import resolve

    print(compare(pruned_subject(resolve("torchvision:resnet50"), zl.Block(8, 8), 0.5)))

``rivals/`` holds one file an engine, ``clock`` the rounds, ``compare`` the whole story, ``comparison`` its result.
"""
