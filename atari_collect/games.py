"""The games that ale-py bundles, under any of their names, and their ROM files."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path

# ale-py 0.12's own names, without combat, joust, maze_craze and warlords, which need two players.
ROMS = tuple(
    """
adventure air_raid alien amidar assault asterix asteroids atlantis atlantis2 backgammon bank_heist basic_math
battle_zone beam_rider berzerk blackjack bowling boxing breakout carnival casino centipede chopper_command
crazy_climber crossbow darkchambers defender demon_attack donkey_kong double_dunk earthworld elevator_action
enduro entombed et fishing_derby flag_capture freeway frogger frostbite galaxian gopher gravitar hangman
haunted_house hero human_cannonball ice_hockey jamesbond journey_escape kaboom kangaroo keystone_kapers
king_kong klax koolaid krull kung_fu_master laser_gates lost_luggage mario_bros miniature_golf montezuma_revenge
mr_do ms_pacman name_this_game othello pacman phoenix pitfall pitfall2 pong pooyan private_eye qbert riverraid
road_runner robotank seaquest sir_lancelot skiing solaris space_invaders space_war star_gunner superman surround
tennis tetris tic_tac_toe_3d time_pilot trondead turmoil tutankham up_n_down venture video_checkers video_chess
video_cube video_pinball wizard_of_wor word_zapper yars_revenge zaxxon
""".split()  # noqa: SIM905 - a paragraph of names reads better than a column
)


@dataclass(frozen=True)
class Rom:
    """A game's program."""

    path: Path
    md5: str


def game_id(rom: str) -> str:
    """``space_invaders`` -> ``SpaceInvaders``, the name that gymnasium gives the game."""
    return rom.title().replace("_", "")


def _letters(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


_BY_LETTERS = {_letters(rom): rom for rom in ROMS}


def find_game(name: str) -> str | None:
    """``space_invaders``, ``SpaceInvaders`` or ``space-invaders`` -> ``SpaceInvaders``; None for what is no game."""
    rom = _BY_LETTERS.get(_letters(name))
    return game_id(rom) if rom else None


def near_games(name: str) -> list[str]:
    """Up to three games of similar names, the most similar first."""
    return [game_id(_BY_LETTERS[near]) for near in difflib.get_close_matches(_letters(name), _BY_LETTERS, 3, 0.5)]


def rom_name(name: str) -> str:
    """Any of a game's names -> ``space_invaders``; ``ValueError`` names the nearest games."""
    rom = _BY_LETTERS.get(_letters(name))
    if rom is None:
        near = near_games(name)
        hint = f"did you mean {' or '.join(near)}?" if near else "see --help"
        raise ValueError(f"{name!r} is not an Atari game that ale-py bundles; {hint}")
    return rom


def find_rom(game: str) -> Rom:
    """The ROM file of a game and its MD5, from ale-py or from the folder that ALE_ROMS_DIR names.

    Raises ``ValueError`` when ale-py is not installed, or has not this game, or knows it by another MD5: the emulator
    would end the whole process.
    """
    spec = importlib.util.find_spec("ale_py")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"{game} is played by ale-py: pip install 'vqsweep[atari]'")
    bundled = Path(spec.submodule_search_locations[0]) / "roms"
    path = Path(os.environ.get("ALE_ROMS_DIR", bundled)) / f"{rom_name(game)}.bin"
    try:
        md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    except OSError as error:
        raise ValueError(f"{game}: there is no ROM file {path.name} in {path.parent} ({error.strerror})") from None
    expected = json.loads((bundled / "md5.json").read_text()).get(path.name)
    if md5 != expected:
        raise ValueError(f"{game}: {path} has MD5 {md5}; this ale-py plays {expected}")
    return Rom(path, md5)
