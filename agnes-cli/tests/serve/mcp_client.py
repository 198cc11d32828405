"""The official client of the Model Context Protocol against a server and a data folder.

usage: mcp_client.py tools|progress|cancel|laptop|sign-in, with what each needs in the environment.
"""

import asyncio
import html
import json
import os
import re
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata

URL = os.environ["AGNES_URL"]
MCP = f"{URL}/api/mcp/http"


def over_http(token, **more):
    client = httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=120)
    return Client(streamable_http_client(MCP, http_client=client), **more)


def over_stdio(arguments, **more):
    """The command, on a data folder or at a server: there it sends `AGNES_TOKEN`."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "AGNES_TOKEN") if name in os.environ}
    # What it keeps of servers must be nobody's.
    kept["HOME"] = os.environ["AGNES_FOLDER"]
    return Client(StdioServerParameters(command=os.environ["AGNES"], args=["mcp", *arguments], env=kept), **more)


def plain(value):
    return json.dumps(value, sort_keys=True)


async def ask(client, name, /, **arguments):
    """What a tool answers; the text says the same as the structure."""
    result = await client.call_tool(name, arguments)
    text = json.loads(result.content[0].text)
    assert plain(text) == plain(result.structured_content), text
    return bool(result.is_error), text


async def walk(client):
    """Every tool once, as the member; gives all that came."""
    tools = (await client.list_tools()).tools
    seen = {"tools": [tool.model_dump(mode="json") for tool in tools]}
    names = [tool.name for tool in tools]
    assert names[:3] == ["server_info", "catalog", "schema"], names
    for tool in tools:
        assert tool.output_schema["type"] == "object" and tool.annotations.read_only_hint, tool
        failed, docs = await ask(client, "tool_docs", tool_name=tool.name)
        assert not failed and len(docs["documentation"]) > len(tool.description)

    failed, about = await ask(client, "server_info")
    assert not failed and about["user_email"] == "member@example.com" and about["authenticated"], about
    assert about["health"] == "ok", about

    failed, guides = await ask(client, "skills")
    assert not failed and "connectors" in [guide["name"] for guide in guides["skills"]], guides
    for guide in guides["skills"]:
        failed, shown = await ask(client, "skill_show", name=guide["name"])
        assert not failed and shown["name"] == guide["name"] and "agnes " in shown["content"], shown

    # What the member may read, and nothing else.
    for call in [
        ("catalog", {}),
        ("catalog", {"search": "nothing of that name"}),
        ("schema", {"table_id": "orders"}),
        ("sample", {"table_id": "orders", "rows": 2}),
        ("describe", {"table_id": "orders"}),
        ("estimate", {"table_id": "orders", "where": "status = 'paid'"}),
        ("query", {"sql": "select status, count(*) n from orders group by all order by all"}),
        ("query", {"sql": "select * from orders where status = $s order by id", "params": {"s": "paid"}}),
        ("query", {"sql": "select * from orders order by id", "limit": 2}),
        ("query", {"sql": "select * from orders where id > 99"}),
    ]:
        failed, answer = await ask(client, call[0], **call[1])
        assert not failed, (call, answer)
        seen[plain(call)] = answer
    answers = list(seen.values())[1:]
    assert [table["name"] for table in answers[0]["tables"] if table["query_mode"] != "internal"] == ["orders"], answers
    assert answers[1]["tables"] == [] and "others may exist" in answers[1]["note"]
    assert len(answers[3]["rows"]) == 2 and answers[5]["estimated_scan_bytes"] > 0
    assert answers[6]["rows"] == [["lost", 1], ["open", 1], ["paid", 2]], answers[6]
    assert answers[7]["row_count"] == 2 and not answers[7]["truncated"]
    assert answers[8]["row_count"] == 2 and answers[8]["truncated"] and "first 2" in answers[8]["note"]
    assert answers[9]["row_count"] == 0 and "no proof" in answers[9]["note"]

    # What fails says why, and what to try.
    for name, arguments, code in [
        ("query", {"sql": "select * from people"}, "relation_denied"),
        ("query", {"sql": "drop table orders"}, "not_a_query"),
        ("query", {"sql": "select * from read_csv('/etc/passwd')"}, "table_function_denied"),
        ("query", {"sq": "select 1"}, "validation_failed"),
        ("query", {"sql": "select repeat('x', 200000)"}, "output_too_large"),
        ("schema", {"table_id": "people"}, "access_denied"),
        ("sample", {"table_id": "people"}, "access_denied"),
        ("profile", {"table_id": "people"}, "access_denied"),
        ("estimate", {"table_id": "people"}, "access_denied"),
        ("sample", {"table_id": "orders", "rows": 51}, "validation_failed"),
        ("tool_docs", {"tool_name": "nothing"}, "validation_failed"),
        ("skill_show", {"name": "nothing"}, "validation_failed"),
    ]:
        failed, answer = await ask(client, name, **arguments)
        assert failed and answer["code"] == code and answer["status"] >= 400, (name, arguments, answer)
        assert answer.get("hint") or code in ("access_denied", "validation_failed"), answer
        seen[plain([name, arguments])] = code
    try:
        await client.call_tool("no_such_tool", {})
        raise AssertionError("a tool that is not there answered")
    except Exception as error:
        assert "no_such_tool" in str(error), error
    return seen


async def tools():
    """Every door lists the same tools and answers the same, in the new protocol and the old one."""
    token = os.environ["AGNES_TOKEN"]
    folder = ["--data-dir", os.environ["AGNES_FOLDER"], "--as", "member@example.com"]
    seen = []
    for make in [
        over_http(token),
        over_stdio(folder),
        over_stdio(folder, mode="legacy"),
        over_stdio(["--server", URL]),
    ]:
        async with make as client:
            assert client.server_info.name == "agnes", client.server_info
            seen.append(await walk(client))
    for other in seen[1:]:
        assert other == seen[0], [key for key in seen[0] if seen[0][key] != other[key]]
    # One person has 60 calls a minute: of the old protocol over HTTP only some.
    async with over_http(token, mode="legacy") as client:
        listed = [tool.model_dump(mode="json") for tool in (await client.list_tools()).tools]
        assert listed == seen[0]["tools"]
        failed, answer = await ask(client, "query", sql="select count(*) from orders")
        assert not failed and answer["rows"] == [[4]], answer


async def laptop():
    """In a workspace there are three more tools; those need the server only to fetch."""
    workspace = os.environ["AGNES_WORKSPACE"]
    local = ["query_local", "pull", "snapshot"]
    env = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    env["HOME"] = os.environ["AGNES_LAPTOP"]
    server = StdioServerParameters(command=os.environ["AGNES"], args=["mcp"], env=env, cwd=workspace)
    async with Client(server) as client:
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert [name for name in listed if name in local] == local, list(listed)
        assert [listed[name].annotations.read_only_hint for name in local] == [True, False, False]
        for name in local:
            failed, docs = await ask(client, "tool_docs", tool_name=name)
            assert not failed and len(docs["documentation"]) > len(listed[name].description)
        failed, answer = await ask(client, "query_local", sql="select count(*) as n from orders")
        assert failed and answer["code"] == "workspace_empty" and "pull" in answer["hint"], answer
        # Tables come here when they are asked for.
        failed, report = await ask(client, "pull")
        assert not failed and report["tables_updated"] == 0 and report["errors"] == [], report
        failed, answer = await ask(client, "query_local", sql="select count(*) as n from orders")
        assert failed and answer["code"] == "table_not_here", answer
        failed, report = await ask(client, "pull", tables=["orders"])
        assert not failed and report["tables_updated"] == 1 and report["errors"] == [], report
        failed, answer = await ask(client, "query_local", sql="select count(*) as n from orders")
        assert not failed and answer["rows"] == [[4]], answer
        failed, kept = await ask(client, "snapshot", table_id="orders", name="paid", where="status = 'paid'")
        assert not failed and (kept["name"], kept["rows"], kept["truncated"]) == ("paid", 2, False), kept
        failed, answer = await ask(client, "snapshot", table_id="orders", name="paid")
        assert failed and answer["code"] == "snapshot_exists", answer
        failed, kept = await ask(client, "snapshot", table_id="orders", name="paid", force=True)
        assert not failed and kept["rows"] == 4 and "warnings" not in kept, kept
        Path(workspace, "user/duckdb/analytics.duckdb").write_text("not a database")
        failed, kept = await ask(client, "snapshot", table_id="orders", name="all")
        assert not failed and "could not be opened" in kept["warnings"][0], kept
        failed, answer = await ask(client, "snapshot", table_id="people")
        assert failed and answer["code"] == "access_denied", answer
        print("pulled", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        # The server is gone.
        for table in ["orders", "paid"]:
            failed, answer = await ask(client, "query_local", sql=f"select count(*) as n from {table}")
            assert not failed and answer["rows"] == [[4]], answer
        failed, answer = await ask(client, "pull")
        assert failed and answer["code"] == "server_unreachable", answer
    # Outside there are none of them.
    async with over_stdio(["--server", URL]) as client:
        listed = [tool.name for tool in (await client.list_tools()).tools]
        assert not set(local) & set(listed), listed


async def progress():
    """Who asks how far a query is, is told; what a policy takes is said."""
    async with over_http(os.environ["AGNES_TOKEN"]) as client:
        told = []

        async def listen(done, total, message):
            told.append((done, message))

        result = await client.call_tool("query", {"sql": "select * from orders"}, progress_callback=listen)
        assert told[0] == (0, "the query runs") and told[-1][0] == result.structured_content["row_count"], told
        scope = result.structured_content["row_scope"]
        assert scope == [{"table": "orders", "rows_filtered": True, "masked_columns": ["amount"]}], scope
        assert {row[1] for row in result.structured_content["rows"]} == {"paid"}
        result = await client.call_tool("catalog", {})
        orders = next(table for table in result.structured_content["tables"] if table["name"] == "orders")
        assert orders["row_scope"]["rows_filtered"], orders
        failed, found = await ask(client, "profile", table_id="orders")
        assert failed or found["profile"]["columns"], found


async def cancel():
    """A query that nobody waits for any more."""
    async with over_http(os.environ["AGNES_TOKEN"]) as client:
        call = asyncio.create_task(client.call_tool("query", {"sql": os.environ["AGNES_SQL"]}))
        print("asked", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        call.cancel()
        try:
            await call
        except (asyncio.CancelledError, Exception):
            pass
        print("cancelled", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        # The connection goes on.
        failed, answer = await ask(client, "query", sql="select 1 as one")
        assert not failed and answer["rows"] == [[1]], answer


class Kept:
    tokens = client_info = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client_info

    async def set_client_info(self, client_info):
        self.client_info = client_info


async def sign_in():
    """From an address and a person before a browser to an answer, as a hosted assistant does it."""
    kept, found = Kept(), {}
    browser = httpx2.AsyncClient(cookies={"access_token": os.environ["AGNES_SESSION"]}, timeout=60)

    async def open_page(url):
        page = await browser.get(url, headers={"Accept": "text/html"})
        assert page.status_code == 200, page.text
        assert "an assistant &lt;of a test&gt;" in page.text and "127.0.0.1" in page.text, page.text
        pairs = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', page.text)
        form = {name: html.unescape(value) for name, value in pairs} | {"decision": "allow"}
        policy = page.headers["content-security-policy"]
        assert "form-action 'self' http://127.0.0.1:7" in policy, policy
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": URL}
        sent = await browser.post(f"{URL}/oauth/authorize", content=urlencode(form), headers=headers)
        assert sent.status_code == 303, sent.text
        found.update({name: values[0] for name, values in parse_qs(urlsplit(sent.headers["location"]).query).items()})

    async def wait_for_code():
        return AuthorizationCodeResult(code=found["code"], state=found.get("state"), iss=found.get("iss"))

    about = OAuthClientMetadata(
        client_name="an assistant <of a test>",
        redirect_uris=["http://127.0.0.1:7/callback"],
        token_endpoint_auth_method="none",
    )
    auth = OAuthClientProvider(MCP, about, kept, redirect_handler=open_page, callback_handler=wait_for_code)
    client = httpx2.AsyncClient(auth=auth, timeout=60)
    async with Client(streamable_http_client(MCP, http_client=client)) as assistant:
        failed, answer = await ask(assistant, "query", sql="select count(*) from orders")
        assert not failed and answer["rows"] == [[4]], answer
        failed, about = await ask(assistant, "server_info")
        assert about["user_email"] == "member@example.com", about
    assert kept.tokens.refresh_token and kept.tokens.expires_in == 28800, kept.tokens
    # An access token that is over is renewed without a person.
    first = kept.tokens
    found.clear()
    auth.context.token_expiry_time = 1
    client = httpx2.AsyncClient(auth=auth, timeout=60)
    async with Client(streamable_http_client(MCP, http_client=client)) as assistant:
        failed, answer = await ask(assistant, "query", sql="select 2")
        assert not failed and answer["rows"] == [[2]], answer
    assert not found and kept.tokens.access_token != first.access_token
    print(json.dumps({"access": kept.tokens.access_token, "refresh": kept.tokens.refresh_token,
                      "old": first.access_token, "client": kept.client_info.client_id}))


WAYS = {"tools": tools, "progress": progress, "cancel": cancel, "laptop": laptop, "sign-in": sign_in}
asyncio.run(WAYS[sys.argv[1]]())
