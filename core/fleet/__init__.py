"""The fleet as the core knows it: who may join (`enrolment`), what each device says it runs (`devices`)."""
