"""What the files of our Rust crates import from each other, read from their sources."""

import re
from collections.abc import Iterator
from pathlib import Path

# Comments, and literals that may hold braces, semicolons or the word `use`.
_NOISE = re.compile(r'//[^\n]*|/\*.*?\*/|r(#*)".*?"\1|"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])\'', re.DOTALL)
_USE = re.compile(r"\b(?P<public>pub\s+)?use\s+(?P<tree>[^;]+);")
# A path that is written out where it is used: `crate::name::check(...)`.
_INLINE = re.compile(r"\b\w+(?:::\w+)+")
_VISIBILITY = re.compile(r"\bpub\([^)]*\)")
_INNER_MODULE = re.compile(r"\bmod\s+(\w+)\s*\{")

Name = tuple[str, ...]


class Crate:
    """The modules of one crate.

    Args:
        sources: Its ``src`` folder.
    """

    def __init__(self, sources: Path) -> None:
        self.files = {_module(path.relative_to(sources)): path for path in sorted(sources.rglob("*.rs"))}
        self._code = {module: _code(path.read_text()) for module, path in self.files.items()}
        # What a module gives on from another, by the name that it has there.
        self._given_on = {
            (*module, path[-1]): (module, path)
            for module, code in self._code.items()
            for use in _USE.finditer(code)
            if use["public"]
            for path in _leaves(use["tree"])
        }

    def imports(self) -> dict[Name, set[Name]]:
        """Give for each module the modules of the same crate that it imports from, tests left out.

        What a folder gives on from its own files is no import: who uses it imports from there.
        """
        return {
            module: {
                found
                for path, is_given_on in _paths(code)
                if (found := self._find(module, path)) is not None
                and found != module
                and not (is_given_on and found[: len(module)] == module)
            }
            for module, code in self._code.items()
            if "tests" not in module
        }

    def _find(self, module: Name, path: Name) -> Name | None:
        """Give the module that this path leads into, or None if that is of another crate."""
        match path[0]:
            case "crate":
                here: Name = ()
            case "self":
                here = module
            case "super":
                here = module[:-1]
            case _:
                # A child of this module, which needs no `self::` in a `use`.
                here = (*module, path[0])
                if here not in self.files:
                    return None
        for word in path[1:]:
            if word == "super":
                here = here[:-1]
            elif (*here, word) in self.files:
                here = (*here, word)
            elif given := self._given_on.get((*here, word)):
                # Of an inner module, if it is of no file.
                return self._find(*given) or here
            else:
                break
        return here


def circles(arrows: dict[Name, set[Name]]) -> list[set[Name]]:
    """Give each set of modules that reach each other."""
    reached = {module: _reachable(module, arrows) for module in arrows}
    found: list[set[Name]] = []
    for module in arrows:
        circle = {other for other in reached[module] if module in reached.get(other, ())}
        if circle and circle not in found:
            found.append(circle)
    return found


def _reachable(module: Name, arrows: dict[Name, set[Name]]) -> set[Name]:
    reached: set[Name] = set()
    ahead = [module]
    while ahead:
        for other in arrows.get(ahead.pop(), set()) - reached:
            reached.add(other)
            ahead.append(other)
    return reached


def _module(path: Path) -> Name:
    parts = path.with_suffix("").parts
    return parts[:-1] if parts[-1] in {"lib", "mod"} else parts


def _code(text: str) -> str:
    """Take out comments, literals and the tests; what is in an inner module counts as its file's."""
    code = _VISIBILITY.sub("pub", _NOISE.sub('""', text))
    while found := _INNER_MODULE.search(code):
        end = _end_of_block(code, found.end())
        block = "" if "tests" in found[1] else re.sub(r"(?<!:)\bsuper::", "self::", code[found.end() : end])
        code = code[: found.start()] + block + code[end:]
    return code


def _end_of_block(code: str, start: int) -> int:
    depth = 1
    for brace in re.compile(r"[{}]").finditer(code, start):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return brace.end()
    return len(code)


def _paths(code: str) -> Iterator[tuple[Name, bool]]:
    """Give each path, and whether the module gives on what it leads to."""
    for use in _USE.finditer(code):
        for path in _leaves(use["tree"]):
            yield path, use["public"] is not None
    for inline in _INLINE.finditer(_USE.sub("", code)):
        yield tuple(inline[0].split("::")), False


def _leaves(tree: str, before: Name = ()) -> Iterator[Name]:
    """Give each path of a ``use`` tree."""
    head, brace, rest = tree.partition("{")
    names = tuple(word.strip() for word in head.split(" as ")[0].split("::") if word.strip())
    if not brace:
        yield (*before, *names)
        return
    for branch in _branches(rest.rpartition("}")[0]):
        yield from _leaves(branch, (*before, *names))


def _branches(text: str) -> Iterator[str]:
    depth, start = 0, 0
    for end, letter in enumerate(text):
        depth += (letter == "{") - (letter == "}")
        if letter == "," and depth == 0:
            yield text[start:end]
            start = end + 1
    if text[start:].strip():
        yield text[start:]
