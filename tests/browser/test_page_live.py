"""The page in a real browser, on a real mesh: what a reader does, sees, and is spared."""

from __future__ import annotations

import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from orchard import TOKEN, url_of
from playwright.sync_api import Browser, Page, Route, WebSocketRoute, expect

from offgrid.client.payloads import builtin
from offgrid_node.local_mesh import LocalMesh

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text()
VIEWS = [
    *(
        "overview",
        "mesh",
        "jobs",
        "jobs/offers",
        "jobs/schedules",
        "jobs/host",
        "storage",
        "storage/outbox",
        "storage/quorums",
        "storage/retention",
        "storage/backups",
    ),
    *("ledger", "ledger/transactions", "ledger/blocks", "ledger/epochs", "events", "sessions", "mail", "settings"),
]
KILLED_SEEN_WITHIN_S = 2.0
EVENT_TO_SCREEN_MS = 200
EVENTS_OF_A_PAGE = 250  # more than the journal shows at first
A_PYTHON_S = 0.02  # starting one, on a machine for which promises of time are made
SLOWNESS_MAX = 3.0
ROUNDS = 3

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("browser")]
Show = Callable[[str], Page]


def slowness() -> float:
    """How many times slower this machine is just now than one with time to spare; at least 1."""
    began = time.monotonic()
    for _ in range(3):
        subprocess.run([sys.executable, "-I", "-S", "-c", ""], check=True)
    return max(1.0, (time.monotonic() - began) / 3 / A_PYTHON_S)


def hold_to(promised: float, measure: Callable[[], float]) -> None:
    """One of ROUNDS keeps what is promised for a machine with time to spare, and longer where this one is slower just
    then: up to SLOWNESS_MAX times, beyond which nothing is promised, but what its slowness does not explain fails."""
    for _ in range(ROUNDS):
        before, took = slowness(), measure()
        slow = max(before, slowness())
        print(f"{took:.2f} where {promised} is promised, by a machine {slow:.1f} times too slow")  # noqa: T201 - seen with -s
        if took <= promised * min(SLOWNESS_MAX, slow):
            return
    if slow > SLOWNESS_MAX and took <= promised * slow * SLOWNESS_MAX:
        pytest.skip(f"{took:.2f} where {promised} is promised, by a machine {slow:.1f} times too slow to be held to it")
    pytest.fail(f"{took:.2f} where {promised} is promised, in the last of {ROUNDS} rounds")


def echo(mesh: LocalMesh) -> None:
    """A job that a host does."""
    with mesh["attic"].client() as client:
        client.submit(builtin("echo", input=b"pears")).result(30)


def test_a_job_that_is_submitted_by_clicking_appears_and_ends_live(show: Show) -> None:
    page = show("jobs")
    page.get_by_text("Submit a job").click()
    page.get_by_label("Input").fill("apples & <pears>")
    page.get_by_role("button", name="Submit").click()
    row = page.locator("tbody tr").first
    expect(row).to_contain_text("builtin:echo")
    expect(row).to_contain_text("completed")
    expect(page.get_by_label("Input")).to_have_value("")
    row.get_by_role("link").click()
    expect(page.locator("[data-test=output]")).to_have_text("apples & <pears>")
    expect(page.get_by_role("heading", name="Receipt")).to_be_visible()


def test_what_no_host_can_do_says_why_and_is_cancelled(show: Show) -> None:
    page = show("jobs")
    page.get_by_text("Submit a job").click()
    page.get_by_label("Command", exact=True).check()
    page.get_by_role("textbox", name="Command").fill("nosuch")
    page.get_by_role("button", name="Submit").click()
    page.locator("tbody tr", has_text="process:nosuch").get_by_role("link").click()
    expect(page.locator("main")).to_contain_text("Does not offer process:nosuch")
    page.get_by_role("button", name="Cancel the job").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
    expect(page.locator("main .badge", has_text="cancelled").first).to_be_visible()


def test_what_the_node_refuses_is_shown_in_its_words_and_nothing_typed_is_lost(show: Show) -> None:
    page = show("ledger")
    page.get_by_label("To", exact=True).select_option("Another account…")
    page.get_by_label("Account", exact=True).fill("nobody")
    page.get_by_label("Amount").fill("1")
    page.get_by_role("button", name="Sign and send").click()
    page.get_by_role("dialog").get_by_role("button", name="Transfer").click()
    expect(page.get_by_role("alert")).to_contain_text("nobody")
    show("mesh")
    page = show("ledger")
    expect(page.get_by_label("Account", exact=True)).to_have_value("nobody")


def test_a_transfer_is_pending_and_then_final(show: Show, mesh: LocalMesh) -> None:
    page = show("ledger")
    stopped = [mesh[name].process for name in ("cellar", "shed")]  # without these two of four nothing becomes final
    for process in stopped:
        assert process is not None
        process.send_signal(signal.SIGSTOP)
    try:
        page.get_by_label("To", exact=True).select_option("barn")
        page.get_by_label("Amount").fill("12.5")
        page.get_by_role("button", name="Sign and send").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("Pay 12.5 to barn?")
        dialog.get_by_role("button", name="Transfer").click()
        sent = page.locator("[data-test=sent]")
        expect(sent).to_be_focused()
        expect(sent).to_contain_text("pending")
        expect(page.locator("section", has_text="At risk").first).to_contain_text("12.5")
    finally:
        for process in stopped:
            assert process is not None
            process.send_signal(signal.SIGCONT)
    expect(sent).to_contain_text("final")
    expect(page.locator("tr", has_text="barn").first).to_contain_text("1,000,012.5")


@pytest.mark.parametrize(
    ("locale", "read", "refused"),
    [
        (
            "en-GB",
            {"1.5": "1.5", "1500": "1,500", "0.000001": "0.000001"},
            ["1,500", "1,5", "1,500.5", "1.", ".5", "-1"],
        ),
        ("de-DE", {"1,5": "1,5", "1500": "1.500"}, ["1.500", "1.5", "1.500,5", "1 500", "1,", "1,1234567"]),
    ],
)
def test_an_amount_has_one_meaning_and_is_asked_about_first(
    browser: Browser, url: str, locale: str, read: dict[str, str], refused: list[str]
) -> None:
    page = browser.new_context(locale=locale).new_page()
    page.goto(f"{url}/#/ledger")
    amount, dialog = page.locator("[inputmode=decimal]"), page.get_by_role("dialog")
    page.locator("main form select").select_option("barn")
    for text in refused:
        amount.fill(text)
        page.locator("form button[type=submit]").click()
        expect(amount).to_have_attribute("aria-invalid", "true")
        assert dialog.count() == 0, text
    for text, said in read.items():
        amount.fill(text)
        page.locator("form button[type=submit]").click()
        expect(dialog.get_by_role("heading")).to_contain_text(re.compile(rf"(?<![\d.,]){re.escape(said)}(?![\d.,])"))
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
    page.context.close()


def test_an_event_is_on_the_screen_soon(show: Show, mesh: LocalMesh) -> None:
    page = show("events")
    expect(page.locator("tbody tr").first).to_be_visible()
    page.evaluate(
        """() => {
          window.seen = {};
          const look = () => { for (const row of document.querySelectorAll("tbody tr")) window.seen[row.textContent] ??= Date.now(); };
          new MutationObserver(look).observe(document.querySelector("main"), { childList: true, subtree: true });
          look();
        }"""  # noqa: E501
    )
    rounds = iter(range(ROUNDS))

    def to_screen_ms() -> float:
        this = next(rounds)
        titles = [f"round {this}: measured {number:02}" for number in range(30)]
        with mesh["attic"].client() as client:
            for title in titles:
                client.missions.create(title)
                time.sleep(0.05)
            expect(page.locator("tbody tr", has_text=titles[-1])).to_be_visible()
            events = client.events.list(types=["MISSION_CREATED"])
            made = {event.mission.title: event.timestamp_us / 1_000 for event in events}
        seen = page.evaluate("() => window.seen")
        return statistics.median(min(at for row, at in seen.items() if title in row) - made[title] for title in titles)

    hold_to(EVENT_TO_SCREEN_MS, to_screen_ms)


def test_a_killed_host_turns_red_and_comes_back(show: Show, mesh: LocalMesh) -> None:
    def to_red_s() -> float:
        page = show("mesh")
        spot = page.locator("[data-node=shed]")
        expect(spot).to_have_attribute("data-life", "ALIVE")
        mesh["shed"].kill()
        began = time.monotonic()
        page.wait_for_selector("[data-node=shed][data-life=DEAD]", state="attached")
        took_s = time.monotonic() - began
        assert "bad" in (spot.get_attribute("class") or "")
        expect(show("overview").locator(".health")).to_contain_text("shed")
        mesh["shed"].run("run")
        mesh["shed"].wait_ready()
        expect(show("mesh").locator("[data-node=shed][data-life=ALIVE]")).to_be_attached()
        return took_s

    hold_to(KILLED_SEEN_WITHIN_S, to_red_s)


def test_names_from_the_mesh_are_text_and_nothing_else(show: Show) -> None:
    for view in ("storage", "sessions", "events"):
        page = show(view)
        if view == "events":
            page.get_by_label("Find").fill("onerror")  # many have happened since
        expect(page.locator("main")).to_contain_text("<img src=x")
        if view == "events":
            page.locator("main summary", has_text="onerror").first.click()
            expect(page.locator("main tbody pre").first).to_contain_text("onerror=")
        assert page.locator("main img").count() == 0
    assert page.evaluate("() => window.pwned") is None


def test_an_old_event_is_found_among_many_newer_ones(show: Show, mesh: LocalMesh) -> None:
    with mesh["attic"].client() as client:
        mission = client.missions.create("many")
        for number in range(EVENTS_OF_A_PAGE):
            client.missions.update(mission.mission_id, title=f"many {number}")
    page = show("events")
    page.get_by_label("Find").fill("member_admitted")
    expect(page.locator("tbody tr", has_text="MEMBER_ADMITTED").first).to_be_visible()
    page.get_by_label("Find").fill("")
    page.get_by_label("Show").select_option("mesh")
    expect(page.locator("tbody tr", has_text="NODE_STARTED").first).to_be_visible()
    page.get_by_label("Find").fill("nothing is called so")
    expect(page.locator("main")).to_contain_text("No such events.")


def test_time_travels(show: Show) -> None:
    page = show("sessions")
    page.get_by_role("link", name=re.compile("flight")).click()
    expect(page.locator("[data-test=state]")).to_contain_text('"events": 40')
    page.get_by_role("slider").fill("10")
    expect(page.locator("[data-test=state]")).to_contain_text('"events": 10')
    expect(page.locator("main .scroll tbody tr")).to_have_count(10)
    expect(page.locator(".chart canvas")).to_be_visible()
    page.get_by_label("As of").fill("2001-01-01T00:00:00")
    expect(page.locator("[data-test=state]")).to_contain_text('"events": 0')
    expect(page.locator(".travel")).to_contain_text("Event 0 of 40")
    page.get_by_role("button", name="Now").click()
    expect(page.locator("[data-test=state]")).to_contain_text('"events": 40')


def test_the_journal_is_shown_as_it_was(show: Show) -> None:
    page = show("events")
    page.get_by_label("As of").fill("2001-01-01T00:00:00")
    expect(page.locator("main")).to_contain_text("No such events.")
    page.get_by_role("button", name="Now").click()
    expect(page.locator("tbody tr").first).to_be_visible()


def test_objects_are_found_by_name_and_sorted(show: Show, mesh: LocalMesh) -> None:
    with mesh["attic"].client() as client:
        for number, name in enumerate(("field/b.txt", "field/a.txt", "field/c.txt")):
            client.objects.put(bytes(number * 100 + 1), name=name)
    page = show("storage")
    page.get_by_label("Find").fill("FIELD/")
    names = page.locator("tbody th")
    expect(names).to_have_text(["field/c.txt", "field/a.txt", "field/b.txt"])  # the newest first
    page.get_by_role("button", name="Name").click()
    expect(names).to_have_text(["field/a.txt", "field/b.txt", "field/c.txt"])
    page.get_by_role("button", name="Size").click()
    page.get_by_role("button", name="Size").click()
    expect(names).to_have_text(["field/c.txt", "field/a.txt", "field/b.txt"])
    expect(page.locator("th[aria-sort=descending]")).to_contain_text("Size")
    page.get_by_label("Find").fill("nothing is called so")
    expect(page.locator("main")).to_contain_text("No object is called so.")


def test_a_message_comes_and_is_read(show: Show, mesh: LocalMesh) -> None:
    with mesh["cellar"].client() as client:
        client.mail.send("attic", b"bring two <batteries>")
    page = show("overview")
    expect(page.get_by_role("link", name=re.compile(r"^Mail \d+$"))).to_be_visible()
    expect(page.locator(".health")).not_to_contain_text("messages")
    page = show("mail")
    row = page.locator("tbody tr", has_text="cellar")
    expect(row).to_contain_text("new")
    row.get_by_role("button", name="Read").click()
    expect(row.locator("pre")).to_have_text("bring two <batteries>")
    with page.expect_download() as download:
        row.get_by_role("button", name="Download").click()
    assert download.value.path().read_bytes() == b"bring two <batteries>"
    expect(row).not_to_contain_text("new")
    with mesh["cellar"].client() as client:
        client.mail.send("attic", b"...", name="the newest")
    expect(page.locator("tbody tr", has_text="cellar").first).to_contain_text("the newest")


def test_on_a_phone_all_views_and_whether_it_is_live_stay_in_sight(show: Show, page: Page) -> None:
    size = page.viewport_size
    page.set_viewport_size({"width": 390, "height": 844})
    try:
        show("events")
        page.evaluate("() => scrollTo(0, document.body.scrollHeight)")
        expect(page.locator(".connection")).to_be_in_viewport()
        for link in page.locator(".main-nav a").all():
            expect(link).to_be_in_viewport(ratio=1)
    finally:
        assert size is not None
        page.set_viewport_size(size)


def test_holds_and_members_are_called_by_their_names(show: Show, mesh: LocalMesh) -> None:
    echo(mesh)
    expect(show("ledger").locator("tbody th", has_text=re.compile("^hold 1 for "))).to_be_visible()
    page = show("jobs")
    page.locator("tbody tr", has_text="completed").first.get_by_role("link").click()
    why = page.locator("section", has=page.get_by_role("heading", name="Why")).locator("[lang=en]").first
    expect(why).to_contain_text(re.compile("at (barn|cellar|shed)"))


def test_an_invite_is_a_command_and_a_picture_of_it(show: Show) -> None:
    page = show("mesh")
    page.get_by_role("button", name="Make an invite").click()
    expect(page.locator(".invite code")).to_contain_text("offgrid-node join og1:")
    page.wait_for_function("() => document.querySelector('.invite img')?.naturalWidth > 0")
    assert page.evaluate("() => document.activeElement.closest('.invite') !== null")


def test_all_is_not_well_while_an_object_cannot_become_durable(show: Show, mesh: LocalMesh) -> None:
    with mesh["attic"].client() as client:
        put = client.objects.put(b"pears", required_milli=90_000)
        expect(show("overview").locator(".health a[href='#/storage/outbox']")).to_contain_text("90")
        for entry in client.objects.outbox(open_only=True):
            if entry.object_id == put.object_id:
                client.objects.cancel(entry.id)
    expect(show("overview").locator(".health a[href='#/storage/outbox']")).to_have_count(0)


@pytest.mark.parametrize(("scheme", "rules"), [("light", "{}"), ("dark", "{runOnly: ['cat.color']}")])
def test_no_view_has_a_fault_that_axe_finds(show: Show, page: Page, scheme: str, rules: str) -> None:
    """In the dark theme the colours are others, and nothing else."""
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.evaluate(AXE)  # as the tester: the page's own policy lets no script in
    found = {}
    for view in VIEWS:
        show(view)
        page.wait_for_function("() => !document.querySelector('main [aria-busy]')")
        problems = page.evaluate(f"async () => (await axe.run({rules})).violations")
        found |= {f"{view}: {one['id']}": [node["html"][:200] for node in one["nodes"]] for one in problems}
    assert found == {}


def test_nothing_is_wider_than_a_phone(show: Show, page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    try:
        wide = {}
        for view in VIEWS:
            show(view)
            page.wait_for_function("() => !document.querySelector('main [aria-busy]')")
            if (width := page.evaluate("() => document.documentElement.scrollWidth")) > 390:
                wide[view] = width
        assert wide == {}
    finally:
        page.set_viewport_size({"width": 1280, "height": 900})


def test_it_is_used_by_keyboard_alone(show: Show) -> None:
    page = show("overview")
    page.reload()
    page.locator(".connection.good").wait_for()
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.get_by_role("link", name="Jobs", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_be_focused()
    expect(page).to_have_title("Jobs · attic")


def test_an_address_of_no_view_says_so_and_shows_the_overview(show: Show, page: Page) -> None:
    show("jobs")
    page.evaluate("() => { location.hash = '#/nope'; }")
    said = page.get_by_role("alert").filter(has_text="No such view")
    expect(said).to_be_visible()
    expect(page.locator("a[aria-current][href='#/overview']")).to_be_visible()
    show("jobs")
    expect(said).to_have_count(0)


def test_it_speaks_german(show: Show) -> None:
    page = show("settings")
    page.get_by_label("Language").select_option("de")
    expect(page.locator("h1")).to_have_text("Optionen")
    show("ledger")
    expect(page.locator("tbody tr", has_text="cellar").first).to_contain_text("1.000.000")
    assert page.evaluate("() => document.documentElement.lang") == "de"
    show("settings").get_by_label("Sprache").select_option("")
    expect(page.locator("h1")).to_have_text("Settings")


def test_a_node_that_asks_for_a_token_gets_it_once(browser: Browser, mesh: LocalMesh) -> None:
    page = browser.new_page()
    page.goto(url_of(mesh, "barn"))
    page.get_by_label("Token").fill("a guess")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_text("That is not the token.")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator(".connection.good")).to_be_visible()
    expect(page.locator(".brand")).to_contain_text("barn")
    page.reload()
    expect(page.locator(".connection.good")).to_be_visible()
    page.context.clear_cookies()
    with mesh["barn"].client() as client:
        link = client.mesh.page_link().url
    page.goto(link)
    expect(page).not_to_have_url(re.compile("code"))
    expect(page.locator(".connection.good")).to_be_visible()
    page.context.clear_cookies()
    page.goto("about:blank")
    page.goto(link)
    expect(page.locator("form")).to_contain_text("That link was used already")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator(".connection.good")).to_be_visible()
    url = url_of(mesh, "barn")
    page.goto(f"{url}/#/settings")
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    assert mesh["barn"].stop() == 0
    mesh["barn"].run("run")
    mesh["barn"].wait_ready()
    expect(page.get_by_label("Token")).to_be_visible()  # it has forgotten who was signed in, and no view asks just now
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator(".connection.good")).to_be_visible()
    assert page.request.post(f"{url}/v1/logout", headers={"Origin": url}).ok  # as another tab of this browser does
    expect(page.get_by_label("Token")).to_be_visible()
    page.close()


def test_a_host_is_told_to_take_no_work_and_to_take_it_again(browser: Browser, mesh: LocalMesh) -> None:
    page = browser.new_page()
    with mesh["barn"].client() as client:
        page.goto(client.mesh.page_link().url)
        page.locator(".connection.good").wait_for()
        page.goto(f"{url_of(mesh, 'barn')}/#/jobs/host")
        page.get_by_role("button", name="Take no work").click()
        expect(page.locator("main .badge", has_text="takes no work")).to_be_visible()
        assert client.host.show().state == "off"
        page.get_by_role("button", name="Take work").click()
        expect(page.locator("main .badge", has_text="takes work")).to_be_visible()
        assert client.host.show().state == "on"
        page.goto(f"{url_of(mesh, 'barn')}/#/jobs/offers")
        expect(page.locator("main")).to_contain_text("This node keeps no order book. Brokers: attic")
    page.close()


def test_what_one_more_lost_host_takes_is_said_first_and_listed_first(browser: Browser, url: str) -> None:
    page = browser.new_page(locale="en-GB", timezone_id="UTC")
    here, away = ({"node_id": "a" * 32, "shards": [], "away": away, "weight_milli": 1_000} for away in (False, True))
    safe, bare, gone = [here, here], [here, away], [away, away]

    def answer(route: Route) -> None:
        of = {"state": "OBJECT_STATE_DURABLE", "size_bytes": 9, "shards_needed": 0, "shards_total": 0, "created_us": 1}
        kept = {"safe": (safe, "UNSPECIFIED"), "one copy": (bare, "UNSPECIFIED"), "bare": (bare, "AT_RISK")}
        kept |= {"gone": (gone, "GONE"), "bare too": (bare, "AT_RISK")}
        rows = [
            {**of, "object_id": f"o-{name}", "name": name, "acks": acks, "risk": f"OBJECT_RISK_{risk}"}
            for name, (acks, risk) in kept.items()
        ]
        route.fulfill(json={"objects": rows, "next_page_token": "", "damaged": []})

    def alarmed(route: Route) -> None:
        alert = {"name": "write_latency_ms", "about": "", "value": 22.7, "threshold": 50, "since_us": 1}
        same = {"name": "objects_gone", "about": "", "value": 1, "threshold": 0, "since_us": 1}
        alerts = [{**each, "state": "ALERT_STATE_WARN"} for each in (alert, same)]
        risks = {"gone": 1, "gone_names": ["gone"], "at_risk": 5, "at_risk_names": ["bare", "bare too"]}
        said = route.fetch()
        route.fulfill(response=said, json={**said.json(), "alerts": alerts, "objects": risks})

    page.route("**/v1/objects?*", answer)
    page.route("**/v1/status", alarmed)
    page.goto(url)
    health = page.locator(".health li")
    expect(health.filter(has_text="Writing to disk, in ms: 22.7 now; it passed 50 at 1 Jan 1970")).to_be_visible()
    expect(health.filter(has_text="One object cannot be had now: gone")).to_contain_text("Now")
    expect(health.filter(has_text="objects_gone")).to_have_count(0)
    health.get_by_text("5 objects are gone if one more host is: bare, bare too, …").click()
    expect(page.locator("tbody th")).to_have_text(["gone", "bare", "bare too", "one copy", "safe"])
    page.unroute_all(behavior="ignoreErrors")
    page.context.close()


def test_all_is_not_called_well_before_all_was_asked(browser: Browser, url: str) -> None:
    page = browser.new_page(locale="en-GB")
    held: list[Route] = []
    let_through = False

    def hold(route: Route) -> None:
        if let_through:
            route.continue_()
        else:
            held.append(route)

    page.route("**/v1/retention", hold)
    page.goto(url)
    health = page.locator(".health")
    expect(health).to_contain_text(re.compile("Loading|attention"))  # a busy machine's disk may be slow
    error = {"code": 503, "status": "UNAVAILABLE", "message": "the store is loading", "details": []}
    held[0].fulfill(status=503, json={"error": error})
    expect(health).to_contain_text(re.compile("Not all is known|attention"))
    expect(health.get_by_role("alert")).to_contain_text("The store is loading")
    health.get_by_role("button", name="Try again").click()
    let_through = True
    for route in held[1:]:
        route.continue_()
    expect(health.get_by_role("alert")).to_have_count(0)
    expect(health).to_contain_text(re.compile("All is well|attention"))
    page.context.close()


def test_what_is_cancelled_while_it_waits_for_the_node_is_given_up(browser: Browser, url: str) -> None:
    page = browser.new_page(locale="en-GB")
    held: list[Route] = []

    def break_off(route: Route) -> None:
        """At first; then a part never ends."""
        held.append(route)
        if len(held) == 1:
            error = {"code": 503, "status": "UNAVAILABLE", "message": "the store is loading", "details": []}
            route.fulfill(status=503, json={"error": error})

    page.route("**/v1/uploads/*?offset=*", break_off)
    page.goto(f"{url}/#/storage")
    file = {"name": "given up.bin", "mimeType": "application/octet-stream", "buffer": b"pears" * 1_000}
    page.locator("#upload-file").set_input_files(file)  # type: ignore[arg-type]
    page.get_by_role("button", name="Put").click()
    expect(page.locator("#said")).to_contain_text("given up.bin broke off")
    with page.expect_response(lambda one: one.request.method == "DELETE" and "/v1/uploads/" in one.url) as given_up:
        page.get_by_role("button", name="Cancel").click()
    assert given_up.value.ok
    expect(page.get_by_role("progressbar")).to_have_count(0)
    page.unroute_all(behavior="ignoreErrors")
    page.context.close()


def test_rows_are_asked_for_on_while_the_node_finds_none_of_them(browser: Browser, url: str, mesh: LocalMesh) -> None:
    """As failed jobs behind many that are well: a page of what few rows match may be empty."""
    echo(mesh)
    page = browser.new_page(locale="en-GB")

    def answer(route: Route) -> None:
        here, _, token = route.request.url.partition("&page_token=")
        if "JOB_STATE_COMPLETED" in here and not token:
            route.fulfill(json={"jobs": [], "next_page_token": "behind"})
        else:
            route.fulfill(response=route.fetch(url=here))

    page.route("**/v1/jobs?*", answer)
    page.goto(f"{url}/#/jobs")
    page.get_by_label("Show").select_option("completed")
    expect(page.locator("tbody tr", has_text="completed").first).to_be_visible()
    page.unroute_all(behavior="ignoreErrors")
    page.context.close()


def test_a_long_list_has_no_gap_where_it_goes_on_growing_at_its_top(browser: Browser, url: str) -> None:
    page = browser.new_page(locale="en-GB")
    newest = 450

    def answer(route: Route) -> None:
        asked = {key: value[0] for key, value in parse_qs(urlsplit(route.request.url).query).items()}
        first = int(asked.get("page_token", newest))
        after = max(0, first - int(asked["page_size"]))
        of = {"state": "MAIL_STATE_ANSWERED", "destination": "", "mailboxes": [], "sent_us": 1, "ended_us": 2}
        rows = [{**of, "number": number, "subject": f"no. {number}"} for number in range(first, after, -1)]
        route.fulfill(json={"mail": rows, "next_page_token": str(after or "")})

    page.route("**/v1/mail?*", answer)
    page.goto(f"{url}/#/mail")
    sent = page.locator("section", has=page.get_by_role("heading", name="Sent"))
    rows = sent.locator("tbody tr td:nth-child(3)")

    def show_up_to(count: int) -> list[str]:
        while rows.count() < count:
            before = rows.count()
            sent.get_by_role("button", name="Show more").click()
            expect(rows).not_to_have_count(before)
        return rows.all_text_contents()

    assert show_up_to(250) == [f"no. {number}" for number in range(450, 200, -1)]
    newest = 510
    page.evaluate("() => document.dispatchEvent(new Event('visibilitychange'))")
    expect(rows.first).to_have_text("no. 510")
    assert show_up_to(350) == [f"no. {number}" for number in range(510, 160, -1)]
    page.context.close()


def test_what_is_sent_again_after_a_lost_answer_and_a_reload_is_done_once(
    browser: Browser, url: str, mesh: LocalMesh
) -> None:
    page = browser.new_page(locale="en-GB")
    page.goto(f"{url}/#/jobs")

    def lost(route: Route) -> None:
        route.fetch()
        route.abort()

    def submit() -> None:
        page.get_by_text("Submit a job").click()
        expect(page.get_by_label("Input")).to_have_value("once, please")
        page.get_by_role("button", name="Submit").click()

    def pay() -> None:
        expect(page.get_by_label("To", exact=True)).to_have_value("cellar")
        expect(page.get_by_label("Amount")).to_have_value("3.25")
        page.get_by_role("button", name="Sign and send").click()
        page.get_by_role("dialog").get_by_role("button", name="Transfer").click()

    with mesh["attic"].client() as client:
        jobs = len(list(client.jobs.list()))
        page.route("**/v1/jobs:run", lost)
        page.get_by_text("Submit a job").click()
        page.get_by_label("Input").fill("once, please")
        page.get_by_text("Submit a job").click()
        submit()
        expect(page.get_by_role("alert")).to_contain_text("does not answer")
        page.unroute_all(behavior="ignoreErrors")
        page.reload()
        submit()
        expect(page.get_by_label("Input")).to_have_value("")
        assert len(list(client.jobs.list())) == jobs + 1

        page.goto(f"{url}/#/ledger")
        page.route("**/v1/transfers", lost)
        page.get_by_label("To", exact=True).select_option("cellar")
        page.get_by_label("Amount").fill("3.25")
        pay()
        expect(page.get_by_role("alert")).to_contain_text("does not answer")
        page.unroute_all(behavior="ignoreErrors")
        page.reload()
        pay()
        expect(page.locator("[data-test=sent]")).to_be_visible()
        paid = [sum(one.amount_micro for one in tx.outputs) for tx in client.ledger.history()]
        assert paid.count(3_250_000) == 1
    page.context.close()


def test_a_frame_that_cannot_be_taken_leaves_the_next_ones_alone(browser: Browser, url: str, mesh: LocalMesh) -> None:
    page = browser.new_page(locale="en-GB")
    feeds: list[WebSocketRoute] = []

    def through(feed: WebSocketRoute) -> None:
        feed.connect_to_server()
        feeds.append(feed)

    page.route_web_socket("**/v1/feed*", through)
    page.goto(f"{url}/#/events")
    page.locator(".connection.good").wait_for()
    feeds[-1].send("no frame of a feed")
    with mesh["attic"].client() as client:
        client.missions.create("behind a bad frame")
    expect(page.locator("tbody tr", has_text="behind a bad frame")).to_be_visible()
    page.context.close()


def test_who_is_let_in_by_no_token_is_told_why_and_asked_for_none(browser: Browser, url: str) -> None:
    page = browser.new_page(locale="en-GB")
    why = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "OtherUser", "domain": "offgrid"}
    error = {"code": 401, "status": "UNAUTHENTICATED", "message": "another user of this machine", "details": [why]}
    page.route("**/v1/status", lambda route: route.fulfill(status=401, json={"error": error}))
    page.goto(url)
    expect(page.get_by_role("alert")).to_contain_text("Another user of this machine")
    expect(page.get_by_label("Token")).to_have_count(0)
    page.unroute_all(behavior="ignoreErrors")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".connection.good")).to_be_visible()
    page.context.close()


def test_nothing_is_asked_of_a_ledger_that_is_not_open_and_nobody_signs_out_who_never_signed_in(
    browser: Browser, url: str
) -> None:
    page = browser.new_page(locale="en-GB")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(urlsplit(request.url).path))

    def closed(route: Route) -> None:
        said = route.fetch()
        route.fulfill(response=said, json={**said.json(), "open": False})

    page.route("**/v1/ledger", closed)
    page.goto(url)
    expect(page.locator(".card", has_text="Balance")).to_contain_text("no ledger yet")
    page.goto(f"{url}/#/settings")
    expect(page.get_by_role("heading", name="This browser")).to_be_visible()
    expect(page.get_by_role("button", name="Sign out")).to_have_count(0)
    assert "/v1/wallet" not in asked
    page.unroute_all(behavior="ignoreErrors")
    page.context.close()


def test_a_view_with_a_defect_says_so_and_leaves_the_others_alone(browser: Browser, url: str) -> None:
    page = browser.new_page(locale="en-GB")
    page.route("**/v1/backups", lambda route: route.fulfill(json={}))
    page.goto(f"{url}/#/storage/backups")
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_role("link", name="Settings").click()
    expect(page.get_by_role("heading", name="This browser")).to_be_visible()
    page.unroute_all(behavior="ignoreErrors")
    page.context.close()


def test_another_node_at_the_same_address_gets_nothing_of_the_one_before(browser: Browser, url: str) -> None:
    page = browser.new_page(locale="en-GB")
    feeds: list[WebSocketRoute] = []
    page.route_web_socket("**/v1/feed*", lambda feed: feeds.append(feed.connect_to_server()))
    page.goto(f"{url}/#/ledger")
    page.locator(".connection.good").wait_for()
    page.get_by_label("To", exact=True).select_option("barn")
    page.evaluate("() => sessionStorage.setItem('offgrid.node', 'f'.repeat(64))")
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("Another node answers here now: attic")
    expect(page.get_by_label("To", exact=True)).to_have_value("")
    expect(page.locator(".connection.good")).to_be_visible()
    page.get_by_label("To", exact=True).select_option("barn")

    def as_another(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "node_id": "e" * 64})

    page.route("**/v1/status", as_another)
    feeds[-1].close()
    expect(page.get_by_role("alert")).to_contain_text("Another node answers here now")
    expect(page.get_by_label("To", exact=True)).to_have_value("")
    page.unroute_all(behavior="ignoreErrors")
    page.context.close()


def test_it_says_that_the_node_is_away_and_goes_on_when_it_is_back(show: Show, mesh: LocalMesh) -> None:
    page = show("jobs")
    page.get_by_text("Submit a job").click()
    page.get_by_label("Input").fill("typed before")
    assert mesh["attic"].stop() == 0
    page.evaluate("() => scrollTo(0, document.body.scrollHeight)")
    expect(page.locator(".connection")).to_contain_text("No answer")
    expect(page.locator(".connection")).to_be_in_viewport()
    mesh["attic"].run("run")
    mesh["attic"].wait_ready()
    expect(page.locator(".connection")).to_have_text("Live")
    expect(page.get_by_label("Input")).to_have_value("typed before")
    with mesh["attic"].client() as client:
        client.missions.create("after the restart")
    expect(show("events").locator("tbody tr", has_text="after the restart")).to_be_visible()


def test_nothing_was_asked_of_elsewhere_and_no_script_failed(url: str, asked: list[str], said: list[str]) -> None:
    own = urlsplit(url).netloc
    assert {urlsplit(one).netloc for one in asked if not one.startswith(("data:", "blob:"))} == {own}
    assert len(asked) > 20
    assert said == []
