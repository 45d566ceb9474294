"""A model as a folder of static files: the same pictures by label and seed in any browser, without a server.

    site.write(Path("models/mnist-projgan"), Path("public"), runtime.find())

``page/`` has the page: ``latents.js`` makes latents of seeds by whole numbers alone, ``generator.js`` answers
addresses, ``picture.js`` makes PNGs, ``page.js`` shows them. ``site`` writes the folder, ``runtime``
brings onnxruntime-web.
"""
