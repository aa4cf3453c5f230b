"""Microsoft's own client asks the registries' stand-in which image a tag is.

Usage: registry.py ENDPOINT ROOT_CERTIFICATE; the token is read from standard input.
Prints what it did; the first thing that is not as it should be ends it.
"""

import socket
import sys
import time
from urllib.parse import urlsplit

from azure.containerregistry import ContainerRegistryClient
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, ResourceNotFoundError

REPOSITORY = "reservations-api"
MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"


class Credential:
    def __init__(self, token):
        self.token = token

    def get_token(self, *scopes, **_):
        return AccessToken(self.token, int(time.time()) + 3600)


def same(what, found, expected):
    if found != expected:
        raise SystemExit(f"{what}: {found!r}, and it should be {expected!r}")
    print(f"  {what}: {found}")


def be_this_machine(name):
    """Has the registry's name lead to this machine, as no resolver would."""
    resolve = socket.getaddrinfo

    def here(host, *others, **named):
        return resolve("127.0.0.1" if host == name else host, *others, **named)

    socket.getaddrinfo = here


def client(endpoint, root, token):
    return ContainerRegistryClient(
        endpoint, Credential(token), audience="https://containerregistry.azure.net", connection_verify=root
    )


def main():
    endpoint, root = sys.argv[1:]
    be_this_machine(urlsplit(endpoint).hostname)
    token = sys.stdin.readline().strip()
    registry = client(endpoint, root, token)
    print(f"{ContainerRegistryClient.__module__} against {endpoint}")
    by_tag = registry.get_manifest(REPOSITORY, "1.4.1")
    same("media type", by_tag.media_type, MEDIA_TYPE)
    same("digest", by_tag.digest[:7], "sha256:")
    # The client has hashed what it got, and would have refused a digest of something else.
    by_digest = registry.get_manifest(REPOSITORY, by_tag.digest)
    same("by digest", by_digest.manifest, by_tag.manifest)
    other = registry.get_manifest(REPOSITORY, "1.4.2")
    same("another tag is another digest", other.digest != by_tag.digest, True)
    try:
        registry.get_manifest("missing", "1.0.0")
    except ResourceNotFoundError as error:
        same("an image that is not there", error.status_code, 404)
    else:
        raise SystemExit("an image that is not there was answered")
    try:
        client(endpoint, root, "nobody.s.token").get_manifest(REPOSITORY, "1.4.1")
    except ClientAuthenticationError as error:
        same("a token of nobody's", error.status_code, 401)
    else:
        raise SystemExit("a token of nobody's was taken")


if __name__ == "__main__":
    main()
