"""Report which answers each piece of the template reads: `uv run python -m tools.pieces`.

A piece is a file under `{{cookiecutter.project_slug}}/` or `templates/`. Jinja's syntax tree shows which answers it
reads: in its name, conditions and expressions, through private answers and imported macros. An included file is a
separate piece; the expression that selects it counts for the piece that includes it.

A form is a text that a piece renders to, with placeholders for its includes. Only the answers that a piece reads
select its form, so few answers mean few forms. A rendered file is a form with the forms of its includes inserted: for
any answers, it consists of forms that occur in a covering set of variants.
"""

import copy
import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

from cookiecutter.environment import StrictEnvironment
from jinja2 import FileSystemLoader, TemplateNotFound, nodes
from jinja2.visitor import NodeTransformer

LIMIT = 3
ROOT = Path(__file__).resolve().parent.parent
PROJECT = "{{cookiecutter.project_slug}}"
INCLUDE = re.compile("\0(.*?)\1")

Value = str | bool
Answers = dict[str, Value]


@dataclass(frozen=True)
class Form:
    """A text of a piece, in which each include is `\\0name\\1`. The text is none if the file does not exist."""

    piece: str
    text: str | None

    @property
    def includes(self) -> list[str]:
        """The included pieces, in order."""
        return INCLUDE.findall(self.text or "")


@dataclass(frozen=True)
class Join:
    """Two consecutive parts of a piece, with the text between them. A part is an include and its ends."""

    piece: str
    before: str
    between: str
    after: str


class Reader(dict[str, Any]):
    """Some answers, and the private answers that follow from them. Any other answer is undefined."""

    def __init__(self, template: "Template", answers: Answers) -> None:
        super().__init__(answers)
        self.template = template

    def __missing__(self, name: str) -> str:
        """Render a private answer when a piece reads it."""
        source = self.template.private[name]  # a KeyError makes the name undefined in Jinja
        self[name] = self.template.environment.from_string(source).render(cookiecutter=self)
        return str(self[name])


class OpenIncludes(NodeTransformer):
    """Replace each include by a call that writes the name of the included piece."""

    def visit_Include(self, node: nodes.Include) -> nodes.Node:  # noqa: N802
        """Return an output in place of the include."""
        name = nodes.Name("open_include", "load")
        call = nodes.Call(name, [node.template, nodes.Const(node.ignore_missing)], [], None, None)
        return nodes.Output([call], lineno=node.lineno)


@dataclass
class Template:
    """The template in a folder, read statically."""

    root: Path = ROOT
    forms: dict[tuple[Value, ...], Form] = field(default_factory=dict)
    """Every form rendered so far, by its piece and the values that select it."""

    @cached_property
    def questions(self) -> dict[str, Any]:
        """The content of cookiecutter.json."""
        loaded: dict[str, Any] = json.loads((self.root / "cookiecutter.json").read_text(encoding="utf-8"))
        return loaded

    @cached_property
    def choices(self) -> dict[str, list[Value]]:
        """Every answer that is a choice, with its values, the default first."""
        public = {name: value for name, value in self.questions.items() if not name.startswith("_")}
        return {
            name: value if isinstance(value, list) else [value, not value]
            for name, value in public.items()
            if isinstance(value, list | bool)
        }

    @cached_property
    def texts(self) -> Answers:
        """Every answer that is free text, with its default."""
        public = {name: value for name, value in self.questions.items() if not name.startswith("_")}
        given = {name: value for name, value in public.items() if name not in self.choices}
        return {
            name: self.environment.from_string(text).render(cookiecutter=given) if "{{" in text else text
            for name, text in given.items()
        }

    @cached_property
    def private(self) -> dict[str, str]:
        """The source of every private answer."""
        return {name: value for name, value in self.questions.items() if re.match("__(?!prompts__)", name)}

    @cached_property
    def environment(self) -> StrictEnvironment:
        """The Jinja environment that cookiecutter creates."""
        sys.path.insert(0, str(self.root))
        try:
            options = self.questions["_jinja2_env_vars"]
            made = StrictEnvironment(
                context={"cookiecutter": copy.deepcopy(self.questions)}, keep_trailing_newline=True, **options
            )
        finally:
            sys.path.remove(str(self.root))
        made.loader = FileSystemLoader([self.root / PROJECT, self.root / "templates"])
        return made

    @cached_property
    def files(self) -> list[str]:
        """The pieces under the project's folder, each of which is a file of the rendered project."""
        root = self.root / PROJECT
        return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())

    @cached_property
    def parts(self) -> list[str]:
        """The pieces under `templates/`, which are included. Macros belong to the pieces that import them."""
        root = self.root / "templates"
        found = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
        return sorted(path for path in found if not path.startswith("macros/"))

    def is_copied(self, piece: str) -> bool:
        """Return whether cookiecutter copies the file without rendering it."""
        return any(fnmatch(piece, pattern) for pattern in self.questions["_copy_without_render"])

    def parse(self, piece: str) -> nodes.Template:
        """Return the syntax tree of a piece, which is empty for a copied file."""
        if self.is_copied(piece):
            return nodes.Template([])
        assert self.environment.loader
        source, _, _ = self.environment.loader.get_source(self.environment, piece)
        tree: nodes.Template = self.environment.parse(source, piece)
        return tree

    def find_reads(self, tree: nodes.Node) -> set[str]:
        """Return the public and private answers that a syntax tree and its imported macros name."""
        found = []
        attributes = [(node.node, node.attr) for node in tree.find_all(nodes.Getattr)]
        items = [(node.node, node.arg.as_const()) for node in tree.find_all(nodes.Getitem) if is_const(node.arg)]
        for node, key in [*attributes, *items]:
            if isinstance(node, nodes.Name) and node.name == "cookiecutter":
                found.append(str(key))
        if len(found) != sum(node.name == "cookiecutter" for node in tree.find_all(nodes.Name)):
            raise ValueError("a template reads `cookiecutter` as a whole (read one answer at a time)")
        imports = [node.template for node in tree.find_all(nodes.Import)]
        imports += [node.template for node in tree.find_all(nodes.FromImport)]
        return set(found).union(*(self.find_reads(self.parse(name.as_const())) for name in imports))

    def resolve(self, names: set[str]) -> frozenset[str]:
        """Return the public answers that these names depend on."""
        public: set[str] = set()
        for name in names:
            if name in self.private:
                public |= self.resolve(self.find_reads(self.environment.parse(self.private[name])))
            elif name in self.choices or name in self.texts:
                public.add(name)
            else:
                raise ValueError(f"answer not found: {name}")
        return frozenset(public)

    @cached_property
    def reads(self) -> dict[str, frozenset[str]]:
        """The answers that each piece reads, in its name and its text."""
        return {
            piece: self.resolve(self.find_reads(self.parse(piece)) | self.find_reads(self.environment.parse(piece)))
            for piece in [*self.files, *self.parts]
        }

    @cached_property
    def assembling(self) -> set[str]:
        """The pieces with a fixed name whose answers only select includes."""
        pieces = (piece for piece, reads in self.reads.items() if reads)
        fixed = (piece for piece in pieces if not self.find_reads(self.environment.parse(piece)))
        return {piece for piece in fixed if is_assembling(self.parse(piece).body)}

    def slots(self, piece: str) -> list[frozenset[str]]:
        """Return the answers that each include, condition, loop or expression of a piece reads."""
        return [self.resolve(self.find_reads(node)) for node in self.parse(piece).body]

    def violations(self) -> list[str]:
        """Return an error line for each piece that depends on more answers than the limit."""
        lines = []
        for piece, reads in self.reads.items():
            groups = self.slots(piece) if piece in self.assembling else [reads]
            lines += [
                f"{piece}: reads {len(group)} answers, {', '.join(sorted(group))} "
                f"(split it: {LIMIT} are the limit for anything but includes)"
                for group in groups
                if len(group) > LIMIT
            ]
        return lines

    def form(self, piece: str, answers: Answers) -> Form:
        """Return the form that these answers select."""
        chosen = {name: answers[name] for name in sorted(self.reads[piece])}
        key = (piece, *chosen.values())
        if key not in self.forms:
            self.forms[key] = self.render_form(piece, chosen)
        return self.forms[key]

    def render_form(self, piece: str, answers: Answers) -> Form:
        """Render a piece with only the answers it reads, so that a read that the analysis missed raises an error."""
        reader = Reader(self, answers)
        name = self.environment.from_string(piece).render(cookiecutter=reader)
        if name.endswith("/") or not name:
            return Form(piece, None)
        if self.is_copied(piece):
            return Form(piece, (self.root / PROJECT / piece).read_text(encoding="utf-8"))
        tree = OpenIncludes().visit(self.parse(piece))
        code = self.environment.compile(tree, piece, piece)
        compiled = self.environment.template_class.from_code(
            self.environment, code, self.environment.make_globals(None)
        )
        return Form(piece, compiled.render(cookiecutter=reader, open_include=self.open_include))

    def open_include(self, names: str | list[str], ignore_missing: bool) -> str:
        """Return the placeholder of the piece that an include selects, or an empty string if it may be missing."""
        known = set(self.parts)
        for name in [names] if isinstance(names, str) else names:
            if name in known:
                return f"\0{name}\1"
        if ignore_missing:
            return ""
        raise TemplateNotFound(str(names))

    def combinations(self, names: Iterable[str], fixed: Answers) -> Iterator[Answers]:
        """Yield each combination of the values of some answers, with some of them fixed."""
        free = sorted(name for name in set(names) if name in self.choices and name not in fixed)
        for values in itertools.product(*(self.choices[name] for name in free)):
            yield {**self.texts, **fixed, **dict(zip(free, values, strict=True))}

    def all_reads(self, piece: str, answers: Answers) -> set[str]:
        """Return the answers that a piece and everything included in it read, with some answers fixed."""
        found = set(self.reads[piece])
        for chosen in self.combinations(self.reads[piece], answers):
            found.update(*(self.all_reads(name, chosen) for name in self.form(piece, chosen).includes))
        return found

    def expand(self, form: Form, answers: Answers) -> str:
        """Return the text of a form with its includes inserted."""
        return INCLUDE.sub(lambda mark: self.expand(self.form(mark[1], answers), answers), form.text or "")

    def render(self, answers: Answers) -> dict[str, str]:
        """Return every file of the project that these answers give, by its path, without the hooks."""
        given = {**self.texts, **answers}
        forms = {piece: self.form(piece, given) for piece in self.files}
        reader = Reader(self, given)
        return {
            self.environment.from_string(piece).render(cookiecutter=reader): self.expand(form, given)
            for piece, form in forms.items()
            if form.text is not None
        }

    @cached_property
    def occurrences(self) -> list[tuple[Form | Join, Answers]]:
        """Every form and join that can occur, each with the answers that lead to it."""
        return list(self.reachable({}))

    def reachable(self, answers: Answers, piece: str | None = None) -> Iterator[tuple["Form | Join", Answers]]:
        """Yield every form and join that can occur in a piece or in all files, each with the answers that it needs."""
        for start in [piece] if piece else self.files:
            for chosen in self.combinations(self.reads[start], answers):
                form = self.form(start, chosen)
                yield form, chosen
                for number, included in enumerate(form.includes):
                    yield from self.reachable(chosen, included)
                    yield from self.joins(form, number, chosen)

    def joins(self, form: Form, number: int, answers: Answers) -> Iterator[tuple[Join, Answers]]:
        """Yield the joins of an include of a form with the next part."""
        texts = INCLUDE.split(form.text or "")[::2]
        between = texts[number + 1]
        before = form.includes[number]
        after = form.includes[number + 1 : number + 2] if not between.strip() else []
        reads = set().union(*(self.all_reads(piece, answers) for piece in [before, *after]))
        for chosen in self.combinations(reads, answers):
            yield self.join(form, before, between, after, chosen), chosen

    def join(self, form: Form, before: str, between: str, after: list[str], answers: Answers) -> Join:
        """Return the join of two parts with these answers."""
        ends = [f"{piece}{ends_of(self.expand(self.form(piece, answers), answers))}" for piece in after]
        return Join(
            form.piece,
            f"{before}{ends_of(self.expand(self.form(before, answers), answers))}",
            between if after else between[:2],
            "".join(ends),
        )

    def occurring(self, answers: Answers) -> set[Form | Join]:
        """Return every form and join in the project that these answers give."""
        given = {**self.texts, **answers}
        found: set[Form | Join] = set()

        def walk(piece: str) -> None:
            form = self.form(piece, given)
            if piece not in self.assembling:
                found.add(form)
            for number, included in enumerate(form.includes):
                found.update(join for join, _ in self.joins(form, number, given))
                walk(included)

        for piece in self.files:
            walk(piece)
        return found

    @cached_property
    def required(self) -> dict[Form | Join, Answers]:
        """Every form and join that can occur, with the answers that one occurrence needs."""
        found: dict[Form | Join, Answers] = {}
        for part, answers in self.occurrences:
            if isinstance(part, Form) and part.piece in self.assembling:
                continue  # represented by its joins
            if part not in found or len(answers) < len(found[part]):
                found[part] = answers
        return found

    def cover(self, variants: list[Answers]) -> list[Answers]:
        """Return the variants, and additional ones until every form and join occurs."""
        covering = list(variants)
        missing = set(self.required).difference(*map(self.occurring, variants))
        while missing:
            needs = [self.required[part] for part in self.required if part in missing]
            candidates = [self.complete(needs[at:] + needs[:at]) for at in range(0, len(needs), len(needs) // 20 + 1)]
            best = max(candidates, key=lambda answers: len(missing & self.occurring(answers)))
            covering.append(best)
            missing -= self.occurring(best)
        return covering

    def complete(self, needs: list[Answers]) -> Answers:
        """Return a variant that satisfies the first needs, and any later ones that are compatible."""
        chosen: Answers = {}
        for answers in needs:
            if all(chosen.get(name, value) == value for name, value in answers.items()):
                chosen.update(answers)
        return {name: chosen.get(name, values[0]) for name, values in self.choices.items()}

    def unused(self) -> list[str]:
        """Return the pieces that no combination of answers includes."""
        forms = (part for part, _ in self.occurrences if isinstance(part, Form))
        return sorted(set(self.parts).difference(*(form.includes for form in forms)))


def is_const(node: nodes.Expr) -> bool:
    """Return whether an expression is a literal."""
    return isinstance(node, nodes.Const)


def is_assembling(body: list[nodes.Node]) -> bool:
    """Return whether nodes are includes, static text, and loops or conditions around includes."""
    for node in body:
        if isinstance(node, nodes.For | nodes.If):
            inner = [*node.body, *node.else_, *(getattr(node, "elif_", []))]
            if not is_assembling(inner) or any(text.strip() for text in static_text(node)):
                return False
        elif isinstance(node, nodes.Output):
            if not all(isinstance(part, nodes.TemplateData) for part in node.nodes):
                return False
        elif not isinstance(node, nodes.Include):
            return False
    return True


def static_text(node: nodes.Node) -> list[str]:
    """Return the text in a node that is neither an expression nor a tag."""
    return [part.data for part in node.find_all(nodes.TemplateData)]


def ends_of(text: str) -> str:
    """Describe the ends of a text that affect adjacent text: blank lines, or no text."""
    if not text:
        return " (empty)"
    ends = ["blank line first"] * text.startswith("\n") + ["blank line last"] * text.endswith("\n\n")
    return f" ({', '.join(ends)})" if ends else ""


def main() -> int:
    """Print the pieces that read answers, and the violations of the limit; return the exit code."""
    template = Template()
    for piece in [*template.files, *template.parts]:
        if reads := template.reads[piece]:
            print(f"{piece}: {', '.join(sorted(reads))}")
    lines = template.violations() + [f"{piece}: never included (remove it)" for piece in template.unused()]
    print("\n".join(lines) or f"every piece reads at most {LIMIT} answers", file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
