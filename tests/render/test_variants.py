"""The variants themselves: what is covered, and how it is called."""

import itertools

from tests.variants import CHOICES, COVERING, EVERY, OAUTH, STRUCTURE, Variant


def test_every_combination_of_the_structure_is_rendered():
    combinations = itertools.product(*(CHOICES[name] for name in STRUCTURE))
    rendered = {tuple(variant[name] for name in STRUCTURE) for variant in EVERY}
    assert rendered == set(combinations)


def test_every_pair_of_answers_is_rendered_and_every_pair_of_the_structure_started():
    for names, variants, without in ((tuple(CHOICES), EVERY, ()), (STRUCTURE, COVERING, OAUTH)):
        for one, other in itertools.combinations(names, 2):
            values = [[value for value in CHOICES[name] if value not in without] for name in (one, other)]
            wanted = set(itertools.product(*values))
            assert wanted <= {(variant[one], variant[other]) for variant in variants}, (one, other)


def test_an_id_reads_well_and_is_unique():
    assert Variant.of(result_backend="redis").id == "redis-basic-persistent-py313"
    assert len({variant.id for variant in EVERY}) == len(EVERY)
