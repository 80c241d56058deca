"""Pages for whatever a package makes public.

Before every build a page is written for each module of ``reference_package`` (a setting of
conf.py) into ``reference/api/`` or ``reference/internals/``.  A module with ``__all__`` belongs to
the interface: its page documents what is listed there.  Any other is behind it, and gets a page
for what it defines and no interface lists, where there is such.  So a new module or function needs
no word here.
"""

import importlib
import inspect
import pkgutil
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer


def public_modules(package):
    """Return the modules of a package without an underscore in front, by name.

    Args:
        package (str): its name.

    Returns:
        dict: from names to modules, the package first.
    """
    root = importlib.import_module(package)
    names = [found.name for found in pkgutil.walk_packages(root.__path__, package + ".")]
    names = [name for name in names if not any(part[0] == "_" for part in name.split("."))]
    return {name: importlib.import_module(name) for name in [package, *names]}


def defined(module):
    """Return the names without an underscore that a module defines.

    These are functions, classes, and constants with a comment that begins with ``#:``.
    """
    attributes = ModuleAnalyzer.for_module(module.__name__).find_attr_docs()
    constants = {name for owner, name in attributes if not owner}
    return [
        name
        for name, value in vars(module).items()
        if name[0] != "_"
        and (
            name in constants
            or (callable(value) and getattr(value, "__module__", 0) == module.__name__)
        )
    ]


def pages(package):
    """Return what each page documents.

    Args:
        package (str): the name of the package.

    Returns:
        tuple of dict: from the names of modules to the names that their pages document, those of
        the interface and the others.
    """
    modules = public_modules(package)
    interface = {
        name: [listed for listed in module.__all__ if not inspect.ismodule(getattr(module, listed))]
        for name, module in modules.items()
        if hasattr(module, "__all__")
    }
    listed = {id(getattr(modules[name], own)) for name, names in interface.items() for own in names}
    rest = {
        name: [own for own in defined(module) if id(getattr(module, own)) not in listed]
        for name, module in modules.items()
        if name not in interface
    }
    return interface, {name: names for name, names in rest.items() if names}


def page(name, names):
    """Return the text of the page of a module.

    Args:
        name (str): the module.
        names (list of str): what to document.
    """
    module = importlib.import_module(name)
    lines = [name, "=" * len(name), "", f".. automodule:: {name}"]
    package, _, last = name.rpartition(".")
    if package and not inspect.ismodule(getattr(importlib.import_module(package), last)):
        # A function of the package has the name of the module: the function has the index entry.
        lines.append("   :no-index:")
    lines += ["", f".. currentmodule:: {name}", "", ".. autosummary::", "   :nosignatures:", ""]
    lines += [f"   {own}" for own in names]
    for own in names:
        kind = "data"
        if inspect.isclass(getattr(module, own)):
            kind = "class"
        elif callable(getattr(module, own)):
            kind = "function"
        lines += ["", f".. auto{kind}:: {own}"]
        if kind == "class":
            lines += ["   :members:", "   :show-inheritance:"]
    return "\n".join(lines) + "\n"


def write_pages(app):
    """Write the pages, those that have changed only, and remove those that are no more."""
    found = zip(("api", "internals"), pages(app.config.reference_package), strict=True)
    for kind, modules in found:
        directory = Path(app.srcdir) / "reference" / kind
        directory.mkdir(parents=True, exist_ok=True)
        texts = {f"{name}.rst": page(name, names) for name, names in modules.items()}
        for old in directory.glob("*.rst"):
            if old.name not in texts:
                old.unlink()
        for file, text in texts.items():
            path = directory / file
            if not path.exists() or path.read_text() != text:
                path.write_text(text)


def setup(app: Sphinx):
    """Add the setting and the pages."""
    app.add_config_value("reference_package", None, "env", [str])
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
