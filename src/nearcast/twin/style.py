"""The style sheet of the twin's page. Colours are told apart by people who see few, on light and on dark ground."""

from typing import Final

PALETTE: Final = (
    ("#1464d2", "#6aa8ff"),
    ("#8a8f98", "#9aa1ab"),
    ("#c2571a", "#ff9a5c"),
    ("#8250df", "#b794ff"),
    ("#c0265b", "#ff7aa8"),
    ("#96710a", "#e2b93b"),
    ("#117a54", "#46c795"),
    ("#0f7c8c", "#4cc9dc"),
    ("#444a53", "#d5dae1"),
)


def _rules(spot: int) -> str:
    return "".join(f"--s{index}:{pair[spot]};" for index, pair in enumerate(PALETTE))


_CLASSES: Final = "".join(
    f".line.c{n}{{stroke:var(--s{n})}}.bar.c{n}{{fill:var(--s{n})}}.key.c{n}::before{{background:var(--s{n})}}"
    for n in range(len(PALETTE))
)
_PANES: Final = "".join(f"#map{n}:checked~.pane{n}{{display:block}}" for n in range(len(PALETTE)))

STYLE: Final = (
    ":root{color-scheme:light dark;--ground:#fbfbfa;--card:#fff;--ink:#1d2127;--soft:#5c6470;--rule:#e4e6ea;"
    f"--sea:#f1f4f8;--band:#d64545;--best:#e7f1ff;--cold:#9fc3f0;--hot:#d6302c;{_rules(0)}}}"
    "@media(prefers-color-scheme:dark){:root{--ground:#13161a;--card:#1b1f25;--ink:#e8eaee;--soft:#9aa3af;"
    f"--rule:#2c323a;--sea:#161a20;--band:#ff6b6b;--best:#1d3350;--cold:#31517c;--hot:#ff5a4f;{_rules(1)}}}}}"
    "*{box-sizing:border-box}"
    "body{margin:0;background:var(--ground);color:var(--ink);"
    "font:15px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',sans-serif}"
    "main{max-width:1080px;margin:0 auto;padding:40px 20px 64px}"
    "h1{font-size:32px;line-height:1.2;margin:2px 0 8px;letter-spacing:-.01em}"
    "h2{font-size:19px;margin:0 0 2px}h3{font-size:14px;margin:18px 0 4px;color:var(--soft);font-weight:600}"
    ".kind{margin:0;color:var(--soft);font-size:13px;letter-spacing:.02em}"
    ".about{max-width:70ch;margin:0 0 18px;color:var(--soft)}"
    ".note{border-left:3px solid var(--s2);padding:4px 12px;color:var(--soft)}"
    ".facts{display:flex;flex-wrap:wrap;gap:10px 28px;margin:0 0 8px}"
    ".facts dt{font-size:12px;color:var(--soft)}.facts dd{margin:0;font-size:18px;font-variant-numeric:tabular-nums}"
    "section{background:var(--card);border:1px solid var(--rule);border-radius:12px;padding:20px 22px;margin-top:22px}"
    ".reading{margin:0 0 12px;color:var(--soft);font-size:13.5px}"
    ".wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:13.5px}"
    "th{font-weight:600;color:var(--soft);text-align:right;padding:4px 8px;border-bottom:1px solid var(--rule);"
    "white-space:nowrap}td{text-align:right;padding:6px 8px;border-bottom:1px solid var(--rule);white-space:nowrap}"
    "th:first-child,td:first-child{text-align:left}td.best{background:var(--best);font-weight:600}"
    "tr.bound td{color:var(--soft);font-style:italic}tbody tr:last-child td{border-bottom:0}"
    "svg{display:block;width:100%;height:auto;max-width:900px;margin:0 auto}"
    "svg text{font:11.5px system-ui,sans-serif;fill:var(--soft)}svg .label,svg .value{font-size:12.5px;fill:var(--ink)}"
    ".grid{stroke:var(--rule);stroke-width:1;fill:none}.line{fill:none;stroke-width:1.6;stroke-linejoin:round;opacity:.9}"
    ".line.main{stroke-width:2.8;opacity:1}.dashed{stroke-dasharray:5 4}.band{fill:var(--band);opacity:.1}"
    ".sea{fill:var(--sea)}.dot{fill:color-mix(in oklab,var(--hot) calc(var(--heat)*100%),var(--cold));"
    "stroke:var(--card);stroke-width:1.2;opacity:.92}"
    ".legend{display:flex;flex-wrap:wrap;gap:4px 18px;margin:8px 0 0;font-size:13px}"
    ".key::before{content:'';display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:7px}"
    ".tabs input{position:absolute;opacity:0;pointer-events:none}"
    ".tabs label{display:inline-block;padding:4px 12px;margin:0 4px 12px 0;border:1px solid var(--rule);"
    "border-radius:999px;font-size:13px;cursor:pointer;color:var(--soft)}"
    ".tabs input:checked+label{background:var(--ink);color:var(--card);border-color:var(--ink)}"
    ".tabs input:focus-visible+label{outline:2px solid var(--s0)}.pane{display:none}"
    f"footer{{margin-top:28px;color:var(--soft);font-size:13px}}{_CLASSES}{_PANES}"
)
