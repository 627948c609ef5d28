"""An agent's app that gives back what it gets."""

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    return Message(RecordDict({"w": message.content.array_records["w"]}), reply_to=message)
