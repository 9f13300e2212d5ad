"""The template's code: settings, database, tasks, API and Flower's extensions. Template updates change it."""
