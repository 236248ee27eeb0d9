"""Labels are cleaned as in the released code, or kept in one normal form."""

from hypothesis import example, given
from hypothesis import strategies as st

from sources.cleaning import clean, clean_unicode


def test_cleaning_is_the_released_one():
    assert clean("Café  ole\n") == "Cafeole"
    assert clean("ﬁsh №5") == "fishNo5"  # compatibility forms are taken apart
    assert clean("汉字") == ""


@given(st.text())
@example("\u0339 \u0334")  # accents whose order is another one without the space
def test_cleaning_twice_changes_nothing(text):
    assert clean(clean(text)) == clean(text)
    assert clean_unicode(clean_unicode(text)) == clean_unicode(text)
