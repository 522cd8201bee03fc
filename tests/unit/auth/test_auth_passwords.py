"""Passwords: hashed slowly, compared without telling."""

import pytest

from edgeplane.auth import passwords


async def test_a_password_fits_its_own_hash_only():
    """Salted: two hashes of one password differ, and each fits it and no other."""
    first = await passwords.make_hash("correct horse")
    second = await passwords.make_hash("correct horse")
    assert first != second
    assert first.startswith("$argon2id$")
    assert "correct" not in first
    assert await passwords.matches("correct horse", first)
    assert await passwords.matches("correct horse", second)
    assert not await passwords.matches("Correct horse", first)
    assert not await passwords.matches("", first)


async def test_nobody_has_any_password():
    """No such user: denied, also with the words the stand-in was made of, after the same check."""
    checked = []
    real = passwords._verify

    def counted(*args):
        checked.append(args)
        return real(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_verify", counted)
        assert not await passwords.matches("nobody has this password", None)
    assert len(checked) == 1


@pytest.mark.parametrize("stored", ["", "x", "$argon2id$", "$2b$12$abc", "plain"])
async def test_a_broken_hash_fits_nothing(stored):
    """What is no argon2 hash denies, and does not raise."""
    assert not await passwords.matches("plain", stored)


async def test_any_text_is_a_password():
    """Text of any language and control characters are hashed as they are."""
    stored = await passwords.make_hash("\u5bc6\u7801\x00\n")
    assert await passwords.matches("\u5bc6\u7801\x00\n", stored)
    assert not await passwords.matches("\u5bc6\u7801", stored)


def test_a_flood_of_logins_takes_two_threads():
    """The work of guessing has a bound of its own."""
    assert passwords._pool._max_workers == 2
