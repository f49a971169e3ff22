"""What a file says about its origin is read from the file alone."""

from __future__ import annotations

import io
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from PIL import Image, PngImagePlugin

from runnables.images import verify
from runnables.settings import Settings

#: XMP that says where the manifest of a file lies
XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    'rdf:about="" xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance="{}">'
    '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


@contextmanager
def listening() -> Iterator[tuple[str, list[object]]]:
    """Yield an address and the connections to it, each of which is closed at once."""
    visitors: list[object] = []

    class Visit(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            visitors.append(self.client_address)

    with socketserver.TCPServer(("127.0.0.1", 0), Visit) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/x.c2pa", visitors
        server.shutdown()


def naming(address: str, kind: str) -> bytes:
    """Return a picture's file whose manifest lies at an address."""
    buffer, xmp = io.BytesIO(), XMP.format(address)
    if kind == "PNG":
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", xmp)
        Image.new("RGB", (64, 64)).save(buffer, kind, pnginfo=chunks)
    else:
        Image.new("RGB", (64, 64)).save(buffer, kind, xmp=xmp.encode())
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_manifest_that_lies_elsewhere_is_named_and_not_fetched(kind: str) -> None:
    """Else a picture could have the service call addresses in the operator's network."""
    with listening() as (address, visitors):
        found = verify.inspect(naming(address, kind), Settings(), "img")["c2pa"]
        assert not visitors
    assert (found["state"], found["manifest"]) == (None, None)
    assert "not fetched" in found["error"] and address in found["error"]
