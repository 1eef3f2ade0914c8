"""What is asked of Landlock, by its version (Linux's documentation, "Landlock: unprivileged access control")."""

from __future__ import annotations

from hiplora.evaluation.sandbox.guest import lockdown


def test_ruleset_asks_no_more_than_a_version_knows() -> None:
    words = {version: list(lockdown._ruleset(version)) for version in range(1, 8)}
    # 13 rights on files; then moving (2), truncating (3) and device control (5) to forbid.
    assert words[1] == [0x1FFF]
    assert words[2] == [0x3FFF]
    assert words[3] == [0x7FFF]
    assert words[4] == [0x7FFF, 3]
    assert words[5] == [0xFFFF, 3]
    assert words[6] == words[7] == [0xFFFF, 3, 3]
