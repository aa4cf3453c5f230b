"""Microsoft's own client drives the vaults' stand-in, with challenge verification on.

Usage: key_vault.py VAULT_URL ROOT_CERTIFICATE; the token is read from standard input.
Prints what it did, never a value; the first thing that is not as it should be ends it.
"""

import socket
import sys
import time

from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.keyvault.secrets import SecretClient

NAME = "db-password"


class Credential:
    def __init__(self, token):
        self.token = token

    def get_token(self, *scopes, **_):
        print(f"  token asked for {scopes[0].split('//')[1].split(':')[0]}")
        return AccessToken(self.token, int(time.time()) + 3600)


def same(what, found, expected):
    if found != expected:
        raise SystemExit(f"{what}: {found!r}, and it should be {expected!r}")
    print(f"  {what}: as it should be")


def refused(what, status, kind, call):
    try:
        call()
    except kind as error:
        same(what, error.status_code, status)
        return
    raise SystemExit(f"{what}: it was not refused")


def names_here():
    # Not every system's resolver knows that names under localhost are this machine.
    ask = socket.getaddrinfo
    socket.getaddrinfo = lambda host, *rest, **more: ask(
        "127.0.0.1" if str(host).endswith(".localhost") else host, *rest, **more
    )


def main():
    names_here()
    url, root = sys.argv[1:3]
    credential = Credential(sys.stdin.readline().strip())
    client = SecretClient(url, credential, connection_verify=root, verify_challenge_resource=True)

    refused("a secret that is not there", 404, ResourceNotFoundError, lambda: client.get_secret(NAME))
    first = client.set_secret(NAME, "one", tags={"a": "b"}, content_type="text/plain")
    second = client.set_secret(NAME, "two")
    same("the newest value", client.get_secret(NAME).value, "two")
    old = client.get_secret(NAME, first.properties.version)
    same("the older version", (old.value, old.properties.tags, old.properties.content_type), ("one", {"a": "b"}, "text/plain"))
    listed = {found.version for found in client.list_properties_of_secret_versions(NAME)}
    same("the versions", listed, {first.properties.version, second.properties.version})

    changed = client.update_secret_properties(NAME, first.properties.version, enabled=False, tags={"c": "d"})
    same("a changed version", (changed.enabled, changed.tags), (False, {"c": "d"}))
    refused("a disabled version", 403, HttpResponseError, lambda: client.get_secret(NAME, first.properties.version))
    refused("a bad name", 400, HttpResponseError, lambda: client.set_secret("a_b", "x"))

    for number in range(30):
        client.set_secret(f"s-{number:02}", "x")
    names = [found.name for found in client.list_properties_of_secrets(max_page_size=7)]
    same("all names, in pages", sorted(names), sorted([NAME] + [f"s-{number:02}" for number in range(30)]))

    deleted = client.begin_delete_secret(NAME).result()
    same("the deleted secret", (deleted.name, deleted.recovery_id is not None), (NAME, True))
    refused("a deleted secret", 404, ResourceNotFoundError, lambda: client.get_secret(NAME))
    refused("its name, while deleted", 409, ResourceExistsError, lambda: client.set_secret(NAME, "three"))
    same("the deleted ones", [found.name for found in client.list_deleted_secrets()], [NAME])
    client.begin_recover_deleted_secret(NAME).wait()
    same("the recovered value", client.get_secret(NAME).value, "two")

    client.begin_delete_secret(NAME).wait()
    client.purge_deleted_secret(NAME)
    refused("a purged secret", 404, ResourceNotFoundError, lambda: client.get_deleted_secret(NAME))
    client.set_secret(NAME, "four")
    same("its name, used again", len(list(client.list_properties_of_secret_versions(NAME))), 1)


main()
