"""Sample prompts that `python -m app.admin seed` fills a workspace with: text to read, run, compare and change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MODEL = {
    "provider": "simulated",
    "model_name": "simulated-small",
    "params": {"temperature": 0.2, "max_new_tokens": 200},
}
Content = str | Sequence[Mapping[str, str]]  # a text template, or chat messages


@dataclass(frozen=True)
class Sample:
    """A prompt with its versions (commit message and content), 1 first, and what its labels point at."""

    name: str
    category: str
    description: str
    tags: Sequence[str]
    owner_team: str
    versions: Sequence[tuple[str, Content]]
    labels: Mapping[str, int]
    runs: Sequence[Mapping[str, Any]] = ()  # the variables of its executions
    cases: Sequence[tuple[Mapping[str, Any], Any]] = field(default=())  # inputs and what is expected of them


def chat(system: str, user: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


# (source, type, target): the source does this to the target. Planted by `seeds.relate`.
RELATIONSHIPS: Sequence[tuple[str, str, str]] = (
    ("code-review-security", "extends", "code-review"),
    ("unit-test-writer", "complements", "code-review"),
    ("support-reply", "depends_on", "support-triage"),
    ("release-notes", "references", "commit-message"),
    ("invoice-extraction", "similar", "contact-extraction"),
    ("meeting-summary", "alternative", "article-summary"),
)

SAMPLES: Sequence[Sample] = (
    Sample(
        name="support-triage",
        category="support",
        description="Sorts a support ticket into a category and a priority, as JSON.",
        tags=("support", "classification", "json"),
        owner_team="care",
        versions=(
            ("First draft", "What is this ticket about, and how urgent is it?\n\n{{ ticket }}"),
            (
                "List the labels, ask for JSON",
                'Reply with JSON like {"category": "...", "priority": "..."}.\n'
                "Categories: billing, account_access, bug, how_to, feature_request, cancellation, data_privacy.\n"
                "Priorities: low, normal, high, urgent.\n\nTicket:\n{{ ticket }}",
            ),
            (
                "Define what is urgent, show an example",
                'Reply with JSON like {"category": "...", "priority": "..."} and nothing else.\n'
                "Categories: billing, account_access, bug, how_to, feature_request, cancellation, data_privacy.\n"
                "Priorities: low, normal, high, urgent.\n"
                "A ticket is urgent when work has stopped for a whole team, or data may be lost.\n\n"
                'Example: "I was charged twice in May" is {"category": "billing", "priority": "normal"}.\n\n'
                "Ticket:\n{{ ticket }}",
            ),
        ),
        labels={"production": 2, "staging": 3},
        runs=(
            {"ticket": "Nobody in our team can log in since the update this morning."},
            {"ticket": "Could you add an export to CSV?"},
            {"ticket": "I was charged twice for the same month."},
        ),
        cases=(
            ({"ticket": "I was charged twice in May."}, {"category": "billing", "priority": "normal"}),
            ({"ticket": "Our whole team cannot sign in."}, {"category": "account_access", "priority": "urgent"}),
            ({"ticket": "The export button does nothing."}, {"category": "bug", "priority": "normal"}),
            ({"ticket": "How do I invite a colleague?"}, {"category": "how_to", "priority": "low"}),
            ({"ticket": "A dark theme would be nice."}, {"category": "feature_request", "priority": "low"}),
            (
                {"ticket": "Please close my account at the end of the month."},
                {"category": "cancellation", "priority": "normal"},
            ),
            ({"ticket": "Delete all data that you hold about me."}, {"category": "data_privacy", "priority": "high"}),
            (
                {"ticket": "The app loses what I type. Three reports are gone."},
                {"category": "bug", "priority": "urgent"},
            ),
        ),
    ),
    Sample(
        name="support-reply",
        category="support",
        description="Drafts a reply to a customer that a person reads before it is sent.",
        tags=("support", "writing"),
        owner_team="care",
        versions=(
            (
                "First draft",
                chat(
                    "You answer customers of {{ product }}. You are friendly and brief.",
                    "{{ ticket }}",
                ),
            ),
            (
                "Never promise, always say what happens next",
                chat(
                    "You draft replies to customers of {{ product }} that a colleague reads before they are sent.\n"
                    "Answer what was asked in the first sentence. Never promise a date or a refund. End with what"
                    " happens next and who does it. At most 120 words.",
                    "Ticket:\n{{ ticket }}\n\nWhat we know:\n{{ notes | default('nothing yet') }}",
                ),
            ),
        ),
        labels={"production": 2},
        runs=(
            {
                "product": "Ledgerly",
                "ticket": "When will the invoice of March be corrected?",
                "notes": "A credit note was made today.",
            },
            {"product": "Ledgerly", "ticket": "Is my data stored in Europe?"},
        ),
    ),
    Sample(
        name="code-review",
        category="code",
        description="Reviews a diff and reports the defects that matter, most severe first.",
        tags=("code", "review"),
        owner_team="platform",
        versions=(
            ("First draft", "Review this change:\n\n{{ diff }}"),
            (
                "Ask for defects, not for style",
                "Review this change to a {{ language }} code base. Report only what is wrong: a bug, a race, a leak, a"
                " missing case. Leave style to the formatter.\n"
                "For each finding give the line, what goes wrong, and an input that shows it. Most severe first. If"
                " there is nothing, say so in one sentence.\n\n{{ diff }}",
            ),
        ),
        labels={"production": 2},
        runs=(
            {"language": "Python", "diff": "-    if user.id == owner_id:\n+    if user.id is owner_id:"},
            {"language": "Go", "diff": "+    for _, job := range jobs {\n+        go func() { run(job) }()\n+    }"},
        ),
    ),
    Sample(
        name="code-review-security",
        category="code",
        description="The security part of a code review: injection, access, secrets.",
        tags=("code", "review", "security"),
        owner_team="platform",
        versions=(
            (
                "First draft",
                chat(
                    "You look for security defects in code and for nothing else.",
                    "Check this {{ language }} change for injection, missing access checks, secrets in code or logs,"
                    " and unsafe deserialization. Name the line, the attack in one sentence, and the fix.\n\n"
                    "{{ diff }}",
                ),
            ),
        ),
        labels={"production": 1},
        runs=({"language": "Python", "diff": "+    cursor.execute(f\"SELECT * FROM users WHERE name = '{name}'\")"},),
    ),
    Sample(
        name="unit-test-writer",
        category="code",
        description="Writes tests for a function: the normal case, the edges, and what must be refused.",
        tags=("code", "testing"),
        owner_team="platform",
        versions=(
            ("First draft", "Write unit tests in {{ framework }} for this function:\n\n{{ code }}"),
            (
                "Edges first, one fact per test",
                "Write tests in {{ framework }} for the function below.\n"
                "List the edges of its inputs first: empty, one, many, negative, too long, wrong type. Then write one"
                " test for each that says in its name what must hold. Do not test what the language guarantees.\n\n"
                "{{ code }}",
            ),
        ),
        labels={"production": 1, "staging": 2},
        runs=({"framework": "pytest", "code": "def median(values):\n    return sorted(values)[len(values) // 2]"},),
    ),
    Sample(
        name="commit-message",
        category="code",
        description="Turns a diff into a commit message that says why.",
        tags=("code", "writing"),
        owner_team="platform",
        versions=(
            ("First draft", "Write a commit message for this diff:\n\n{{ diff }}"),
            (
                "Say why, keep the first line short",
                "Write a commit message for the diff below. First line: at most 72 characters, imperative, no full"
                " stop. Then a blank line and at most three sentences that say why the change was made, not what the"
                " diff shows.{% if ticket %} It belongs to {{ ticket }}.{% endif %}\n\n{{ diff }}",
            ),
        ),
        labels={"production": 2},
        runs=({"diff": "-TIMEOUT = 5\n+TIMEOUT = 30", "ticket": "OPS-214"},),
    ),
    Sample(
        name="release-notes",
        category="writing",
        description="Release notes for users from a list of merged changes.",
        tags=("writing", "release"),
        owner_team="product",
        versions=(
            (
                "First draft",
                "Write release notes for {{ product }} {{ version }}. Group the changes under New, Better and Fixed,"
                " in words of the people who use it. Leave out what they cannot notice.\n\n"
                "{% for change in changes %}- {{ change }}\n{% endfor %}",
            ),
        ),
        labels={"production": 1},
        runs=(
            {
                "product": "Ledgerly",
                "version": "4.2",
                "changes": ["export to CSV", "bump the linter", "fix totals that were off by a cent"],
            },
        ),
    ),
    Sample(
        name="blog-introduction",
        category="writing",
        description="The first paragraph of a blog post.",
        tags=("writing", "marketing"),
        owner_team="marketing",
        versions=(
            ("First draft", "Write a blog introduction about {{ topic }}."),
            (
                "Begin with the problem",
                "Write the first paragraph of a blog post about {{ topic }} for {{ audience }}. Begin with the problem"
                " that they had this week, not with the product. Three sentences, no question, no superlative.",
            ),
            (
                "Give the tone as a variable",
                "Write the first paragraph of a blog post about {{ topic }} for {{ audience }}. Begin with the problem"
                " that they had this week, not with the product. Three sentences, no question, no superlative."
                " The tone is {{ tone | default('plain') }}.",
            ),
        ),
        labels={"production": 2, "staging": 3},
        runs=({"topic": "closing the books faster", "audience": "accountants of small firms"},),
    ),
    Sample(
        name="article-summary",
        category="analysis",
        description="Summarizes an article in as many sentences as asked for.",
        tags=("analysis", "summary"),
        owner_team="research",
        versions=(
            ("First draft", "Summarize:\n{{ text }}"),
            (
                "Give the length, forbid what is not there",
                "Summarize the text below in {{ sentences | default(3) }} sentences. Say what it claims and on what"
                " evidence. Add nothing that is not in it, and keep its numbers and names as they stand.\n\n{{ text }}",
            ),
        ),
        labels={"production": 2},
        runs=(
            {"text": "Rain fell all week. The river rose by a metre, and two bridges were closed on Friday."},
            {"text": "The trial had 412 patients. Fever fell a day earlier than with the placebo.", "sentences": 1},
        ),
    ),
    Sample(
        name="meeting-summary",
        category="analysis",
        description="Decisions, open questions and tasks out of a transcript.",
        tags=("analysis", "summary", "json"),
        owner_team="research",
        versions=(
            (
                "First draft",
                chat(
                    "You take minutes. You write down what was said and never what might have been meant.",
                    'From the transcript give JSON: {"decisions": [], "open_questions": [], "tasks": [{"who": "",'
                    ' "what": "", "until": null}]}. A task needs a person who said that he would do it.\n\n'
                    "{{ transcript }}",
                ),
            ),
        ),
        labels={"production": 1},
        runs=({"transcript": "Ann: we ship on Monday. Bob: then I write the notes by Friday. Ann: do we tell sales?"},),
    ),
    Sample(
        name="survey-themes",
        category="analysis",
        description="Finds the themes in free-text answers of a survey, with a count and a quotation each.",
        tags=("analysis", "research"),
        owner_team="research",
        versions=(
            (
                "First draft",
                "Below are {{ answers | length }} answers to the question: {{ question }}\n"
                "Group them into at most five themes. For each give a name, how many answers it has, and one answer"
                " word for word. Answers that fit nowhere are a theme of their own, named Other.\n\n"
                "{% for answer in answers %}{{ loop.index }}. {{ answer }}\n{% endfor %}",
            ),
        ),
        labels={"production": 1},
        runs=(
            {
                "question": "What would make you leave?",
                "answers": ["the price", "another price rise", "if support got slower", "nothing"],
            },
        ),
    ),
    Sample(
        name="invoice-extraction",
        category="extraction",
        description="Reads the fields of an invoice out of its text, as JSON.",
        tags=("extraction", "json", "finance"),
        owner_team="finance",
        versions=(
            ("First draft", "Extract number, date and total of this invoice as JSON:\n\n{{ text }}"),
            (
                "Name the keys and the formats",
                'Extract from the invoice below: {"number": text, "date": "YYYY-MM-DD", "currency": "three letters",'
                ' "total": number, "vat": number or null}. A field that is not there is null; never guess one. Reply'
                " with the JSON alone.\n\n{{ text }}",
            ),
        ),
        labels={"production": 2},
        runs=(
            {"text": "Invoice 2026-118 of 3 May 2026. Total EUR 1,190.00 including EUR 190.00 VAT."},
            {"text": "Bill no. 77, total 12.50 USD"},
        ),
        cases=(
            (
                {"text": "Invoice 2026-118 of 3 May 2026. Total EUR 1,190.00 including EUR 190.00 VAT."},
                {"number": "2026-118", "date": "2026-05-03", "currency": "EUR", "total": 1190.0, "vat": 190.0},
            ),
            (
                {"text": "Bill no. 77, total 12.50 USD"},
                {"number": "77", "date": None, "currency": "USD", "total": 12.5, "vat": None},
            ),
            (
                {"text": "RE-9, 01.02.2026, CHF 80.00, no VAT"},
                {"number": "RE-9", "date": "2026-02-01", "currency": "CHF", "total": 80.0, "vat": None},
            ),
        ),
    ),
    Sample(
        name="contact-extraction",
        category="extraction",
        description="Name, firm, mail and phone out of the signature of a mail.",
        tags=("extraction", "json"),
        owner_team="sales",
        versions=(
            (
                "First draft",
                'Give {"name": "", "firm": null, "mail": null, "phone": null} for whoever signed this mail. Copy the'
                " values as they are written. Reply with the JSON alone.\n\n{{ mail }}",
            ),
        ),
        labels={"production": 1},
        runs=({"mail": "Thanks, see you Tuesday!\n\nMia Okafor\nNorthwind Ltd\nmia@northwind.example"},),
    ),
    Sample(
        name="interface-translation",
        category="translation",
        description="Translates a text of a user interface and keeps its placeholders.",
        tags=("translation", "interface"),
        owner_team="product",
        versions=(
            ("First draft", "Translate into {{ language }}: {{ text }}"),
            (
                "Keep placeholders, respect the length",
                chat(
                    "You translate texts of a user interface. Placeholders such as %s and {0} stay as they are and in"
                    " an order that is right in the other language. Buttons stay short.",
                    "Into {{ language }}, at most {{ max_characters | default(60) }} characters. Where it stands:"
                    " {{ place }}. Reply with the translation alone.\n\n{{ text }}",
                ),
            ),
        ),
        labels={"production": 2},
        runs=(
            {"language": "German", "place": "a button", "text": "Save changes"},
            {"language": "Spanish", "place": "an error", "text": "%s could not be saved"},
        ),
    ),
    Sample(
        name="sql-from-question",
        category="data",
        description="Turns a question into one SELECT over the tables that are given.",
        tags=("data", "sql"),
        owner_team="data",
        versions=(
            (
                "First draft",
                "Tables:\n{{ tables }}\n\nWrite one PostgreSQL SELECT that answers: {{ question }}\n"
                "Use only these tables and columns. If they cannot answer it, reply with NOT POSSIBLE and what is"
                " missing.",
            ),
        ),
        labels={"production": 1},
        runs=(
            {
                "tables": "orders(id, customer_id, total, placed_at), customers(id, name, country)",
                "question": "Which five countries had the highest turnover in 2025?",
            },
        ),
    ),
)
