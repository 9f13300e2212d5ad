"""The sets of variants, and their ids."""

import itertools

from tests.variants import CHOICES, COVERING, OAUTH, STRUCTURE, Variant, covering


def test_pairs_of_answers_are_all_covered() -> None:
    for names, variants, without in ((tuple(CHOICES), covering(), ()), (STRUCTURE, COVERING, OAUTH)):
        for one, other in itertools.combinations(names, 2):
            values = [[value for value in CHOICES[name] if value not in without] for name in (one, other)]
            wanted = set(itertools.product(*values))
            assert wanted <= {(variant[one], variant[other]) for variant in variants}, (one, other)


def test_variant_ids_are_readable_and_unique() -> None:
    assert Variant.of(result_backend="redis").id == "redis-basic-persistent-py313"
    assert len({variant.id for variant in covering()}) == len(covering())
