from sib.errors import OntologyNotFoundError, SibError, error_of_code


def test_an_error_told_by_its_code_is_of_its_class_again() -> None:
    told = error_of_code("ontology.not_found", "there is none")
    assert type(told) is OntologyNotFoundError
    assert told.message == "there is none"
    assert type(error_of_code("of.another.version", "what?")) is SibError
