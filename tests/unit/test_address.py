"""Where the page stands: a password where others can come, a taken port said before anything slow."""

import socket

import pytest

from app import parse_arguments, terminal_language
from glmstudio.errors import StudioError
from glmstudio.ui.address import Address, check_port, secured


@pytest.fixture
def taken_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_this_computer_alone_needs_no_password():
    assert secured(Address()).password == ""
    assert secured(Address("localhost")).password == ""


@pytest.mark.parametrize("address", [Address("0.0.0.0"), Address("192.168.1.5"), Address(share=True)])
def test_where_others_can_come_there_is_a_password(address):
    made = secured(address).password
    assert len(made) >= 12
    assert made != secured(address).password
    given = Address(address.host, share=address.share, password="given")
    assert secured(given).password == "given"


def test_a_taken_port_is_said_with_a_free_one(taken_port):
    with pytest.raises(StudioError) as caught:
        check_port(Address(port=taken_port))
    assert caught.value.code == "port-taken"
    assert caught.value.params["port"] == taken_port
    check_port(Address(port=caught.value.params["free"]))


def test_an_address_of_another_computer_is_refused_with_the_reason():
    with pytest.raises(StudioError) as caught:
        check_port(Address("203.0.113.7", 7860))
    assert caught.value.code == "address-refused"
    assert caught.value.params["reason"]


def test_without_a_port_nothing_is_tried():
    check_port(Address("203.0.113.7"))


def test_the_environment_names_the_host_and_an_argument_wins(monkeypatch):
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    assert parse_arguments([]).host == "0.0.0.0"
    assert parse_arguments(["--host", "127.0.0.1"]).host == "127.0.0.1"


def test_the_terminal_speaks_the_language_that_was_asked_for(monkeypatch):
    monkeypatch.setattr("locale.getlocale", lambda: ("zh_CN", "UTF-8"))
    assert terminal_language(None) == "zh"
    assert terminal_language("en") == "en"
    monkeypatch.setattr("locale.getlocale", lambda: (None, None))
    assert terminal_language(None) == "en"
